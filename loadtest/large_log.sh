#!/usr/bin/env bash
# Fills a log of some GiB without a database, kills the gateway with kill -9, and measures the next start: the time to
# the first acknowledgement, and until everything is in the database.
#
#   loadtest/large_log.sh GATEWAY LOADTEST [GIB] [SEED]
#
# Needs about six times the size of the log under /var/tmp, and removes it at the end.
set -euo pipefail
gateway=$1 loadtest=$2 gib=${3:-5} seed=${4:-1}
at=127.0.0.1:3972
data=$(mktemp -d /var/tmp/wattgate-large-log.XXXXXX)
# The user of the database must be able to enter the directory.
chmod 755 "$data"
finish() {
  # shellcheck disable=SC2046 # one word a process
  kill $(jobs -p) 2>/dev/null || true
  wait || true
  rm -rf "$data"
}
trap finish EXIT
flags=(--data-dir "$data" --listen "$at" --wal-limit "$((gib + 3))GiB")

env -u DATABASE_URL "$gateway" "${flags[@]}" --database-url postgres://nobody@127.0.0.1:1/none \
  >"$data/out" 2>"$data/events" &
pid=$!
until grep -q listening "$data/out"; do sleep 0.1; done
"$loadtest" run --url http://$at --duration 60m --seed "$seed" >"$data/load" 2>&1 &
load=$!
# Four spare segments of 64 MiB are not log.
until [ "$(du -sm "$data/wal" | cut -f1)" -ge $((gib * 1024 + 256)) ]; do sleep 0.5; done
kill -9 $pid
kill -INT $load
wait $load || true
tail -4 "$data/load"

mib=$(($(cat "$data"/wal/*.wal | wc -c) >> 20))
began=$(date +%s.%N)
since() { awk -v a="$began" -v b="$(date +%s.%N)" "BEGIN {printf \"$1\", b - a}"; }
env -u DATABASE_URL "$gateway" "${flags[@]}" >"$data/out" 2>"$data/events" &
pid=$!
first='{"meterId":"FIRST","kwhConsumedAc":1,"voltage":230,"timestamp":"2024-02-09T15:00:00Z"}'
until curl -sf -o /dev/null -H 'content-type: application/json' -d "$first" http://$at/v1/ingestion/meter; do
  sleep 0.01
done
echo "a log of $mib MiB: the first acknowledgement $(since %.2f) s after the start"
waits() {
  curl -s http://$at/metrics |
    awk '/^wattgate_wal_readings/ {n += $2} /^wattgate_database_up 1/ {up = 1} END {exit !(n > 0 || !up)}'
}
while waits; do sleep 1; done
echo "all of it is in the database $(since %.0f) s after the start"
psql=$(sed -n 's/^database: //p' "$data/out")
sql="select sum(meter_stored), sum(meter_duplicates), sum(meter_quarantined), (select count(*)
  from meter_telemetry_history) from wal_checkpoints"
echo "stored, repeats, set aside, rows: $(sh -c "$psql -XAtqc '$sql'")"
awk '/VmHWM/ {print "resident memory at most", int($2 / 1024), "MiB"}' "/proc/$pid/status"
kill -TERM $pid
wait $pid
