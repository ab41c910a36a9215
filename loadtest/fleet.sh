#!/usr/bin/env bash
# A fleet that sends a reading a minute: half meters, half vehicles, in random order. Reports how late batches are
# stored, the memory of the gateway, and whether everything is stored once.
#
#   loadtest/fleet.sh GATEWAY LOADTEST [DEVICES] [MINUTES] [SEED] [DATABASE_URL]
#
# The last argument names an empty database on another server than the embedded one. Needs about 200 bytes per reading under
# /var/tmp, and removes them at the end. Exits with 1 if a batch was stored more than a second after its oldest reading
# was acknowledged, or if a count is wrong.
set -euo pipefail
gateway=$1 loadtest=$2 devices=${3:-1000000} minutes=${4:-10} seed=${5:-1} database=${6:-}
data=$(mktemp -d /var/tmp/wattgate-fleet.XXXXXX)
# The user of the database must be able to enter the directory.
chmod 755 "$data"
finish() {
  # shellcheck disable=SC2046 # one word a process
  kill $(jobs -p) 2>/dev/null || true
  wait || true
  rm -rf "$data"
}
trap finish EXIT

# A database named by an exported variable must not get a million invented devices.
unset DATABASE_URL
where=()
if [ -n "$database" ]; then
  tables=$(psql -XAtqc "select count(*) from pg_tables where schemaname not in ('pg_catalog', 'information_schema')" \
    "$database")
  [ "$tables" = 0 ] || { echo "the database is not empty: it has $tables tables"; exit 2; }
  where=(--database-url "$database")
fi
"$gateway" --data-dir "$data" --listen 127.0.0.1:0 --wal-allow-volatile "${where[@]}" >"$data/out" 2>"$data/events" &
pid=$!
until at=$(sed -n 's/^listening on //p' "$data/out") && [ -n "$at" ] && curl -sf -o /dev/null "$at/health/ready"; do
  kill -0 $pid || { cat "$data/events"; exit 1; }
  sleep 0.2
done
if [ -z "$database" ]; then
  psql=$(sed -n 's/^database: //p' "$data/out")
  # shellcheck disable=SC2001 # the shell's own replacement has no groups
  word() { sed "s/.* -$1 \\([^ ]*\\).*/\\1/" <<<"$psql"; }
  database="host=$(word h) user=$(word U) dbname=$(word d)"
fi

echo "$devices devices, $minutes minutes, seed $seed"
"$loadtest" run --url "$at" --stream mixed --devices $((devices / 2)) --order random --start now \
  --interval-ms 60000 --rate $((devices / 60)) --duration "${minutes}m" --seed "$seed" \
  --database-url "$database" >"$data/load" 2>&1 &
load=$!
while kill -0 $load 2>/dev/null; do sleep 1; done
status=0
wait $load || status=$?
tail -5 "$data/load"

# `slowest HISTOGRAM LABEL`: the number of values, and the bucket with the largest one.
slowest() {
  awk -v name="$1_bucket" -v label="$2" '
    index($0, name) == 1 && index($0, label) {
      bound = $0; sub(/.*le="/, "", bound); sub(/".*/, "", bound)
      if (!(bound in count)) bounds[++n] = bound
      count[bound] += $NF
    }
    END {
      for (i = 1; i < n && count[bounds[i]] < count[bounds[n]]; i++) low = bounds[i]
      printf "%d batches, the slowest between %s and %s s", count[bounds[n]], low == "" ? 0 : low, bounds[i]
    }' "$data/metrics"
}
curl -sf "$at/metrics" >"$data/metrics"
echo "stored after the oldest reading was accepted: $(slowest wattgate_store_lag_seconds le=)"
for step in copy live commit; do
  echo "step $step: $(slowest wattgate_batch_duration_seconds "step=\"$step\"")"
done
late=$(awk '/^wattgate_store_lag_seconds_bucket.*le="1"/ { within += $NF } /^wattgate_store_lag_seconds_count/ { all += $NF }
  END { if (!all) exit 1; printf "%d", all - within }' "$data/metrics")
echo "batches over 1 s: $late"
awk '/VmHWM/ { printf "resident memory of the gateway: at most %d MiB\n", $2 / 1024 }' "/proc/$pid/status"
kill -TERM $pid
wait $pid
[ "$status" = 0 ] && [ "$late" = 0 ]
