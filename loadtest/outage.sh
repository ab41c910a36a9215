#!/usr/bin/env bash
# Stops the database for some minutes under load, then continues it. Reports refusals, the memory of the gateway, the
# time to catch up, and whether everything is stored once.
#
#   loadtest/outage.sh GATEWAY LOADTEST [MINUTES] [READINGS_A_SECOND] [SEED]
#
# Needs about 150 bytes per reading under /var/tmp, and removes them at the end.
set -euo pipefail
gateway=$1 loadtest=$2 minutes=${3:-10} rate=${4:-50000} seed=${5:-1}
at=127.0.0.1:3971
data=$(mktemp -d /var/tmp/wattgate-outage.XXXXXX)
# The user of the database must be able to enter the directory.
chmod 755 "$data"
stopped=()
finish() {
  [ ${#stopped[@]} = 0 ] || kill -CONT "${stopped[@]}" 2>/dev/null || true
  # shellcheck disable=SC2046 # one word a process
  kill $(jobs -p) 2>/dev/null || true
  wait || true
  rm -rf "$data"
}
trap finish EXIT

env -u DATABASE_URL "$gateway" --data-dir "$data" --listen $at >"$data/out" 2>"$data/events" &
pid=$!
until curl -sf -o /dev/null http://$at/health/ready; do sleep 0.2; done
psql=$(sed -n 's/^database: //p' "$data/out")
# shellcheck disable=SC2001 # the shell's own replacement has no groups
word() { sed "s/.* -$1 \\([^ ]*\\).*/\\1/" <<<"$psql"; }
seconds=$((minutes * 60))
"$loadtest" run --url http://$at --rate "$rate" --duration "$((seconds + 30))s" --seed "$seed" \
  --database-url "host=$(word h) user=$(word U) dbname=$(word d)" --stored-within 60m >"$data/load" 2>&1 &
load=$!
sleep 15

# Stop the server without killing it: it accepts connections and never answers.
family() {
  local child
  echo "$1"
  for child in $(pgrep -P "$1"); do family "$child"; done
}
mapfile -t stopped < <(family "$(head -1 "$data/postgres/cluster/postmaster.pid")")
kill -STOP "${stopped[@]}"
echo "$(date -u +%T) the database is stopped"
highest=0 lowest=999999999
look() {
  local kib
  kib=$(awk '/VmRSS/ {print $2}' "/proc/$pid/status")
  if [ "$kib" -gt "$highest" ]; then highest=$kib; fi
  if [ "$kib" -lt "$lowest" ]; then lowest=$kib; fi
}
for _ in $(seq "$seconds"); do
  sleep 1
  look
done
kill -CONT "${stopped[@]}"
echo "$(date -u +%T) the database continues; the log takes $(du -sm "$data/wal" | cut -f1) MiB"
echo "resident memory meanwhile: $((lowest / 1024)) to $((highest / 1024)) MiB"
while kill -0 $load 2>/dev/null; do
  sleep 1
  look
done
wait $load || echo "the load tester ends with $?"
echo "$(date -u +%T) everything is stored; resident memory at most $((highest / 1024)) MiB"
tail -5 "$data/load"
kill -TERM $pid
wait $pid
