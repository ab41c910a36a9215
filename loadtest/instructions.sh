#!/usr/bin/env bash
# How many instructions gateways execute for a reading, in user space, counted by valgrind. The figure is the same from
# run to run within some percent, on a busy machine too: a guard against regressions, not a measure of speed.
#
#   loadtest/instructions.sh LOADTEST GATEWAY [GATEWAY ...]
#
# Each gateway takes the same load for 10 and for 20 seconds; the difference is divided by the readings of 10 seconds.
# What the gateway does by the clock (its housekeeping) is in it, and the same in each run.
set -euo pipefail
loadtest=$1
shift
command -v valgrind >/dev/null || { echo "valgrind is missing: apt-get install valgrind"; exit 2; }
at=127.0.0.1:3975
work=$(mktemp -d /var/tmp/wattgate-instructions.XXXXXX)
# The database's own user must be able to enter it.
chmod 755 "$work"
running=
finish() {
  [ -z "$running" ] || { kill -TERM "$running"; wait "$running" || true; }
  rm -rf "$work"
}
trap finish EXIT

# Prints the instructions of a gateway that receives RATE readings/s, EACH per request, for SECONDS.
count() {
  local gateway=$1 seconds=$2 rate=$3 each=$4 format=$5
  rm -rf "$work/data"
  mkdir "$work/data"
  chmod 755 "$work/data"
  valgrind --tool=callgrind --callgrind-out-file="$work/out" "$gateway" --data-dir "$work/data" --listen $at \
    --wal-allow-volatile >"$work/log" 2>&1 &
  running=$!
  until curl -sf -o /dev/null http://$at/health/ready; do
    kill -0 $running || { cat "$work/log"; exit 1; }
    sleep 0.2
  done
  "$loadtest" run --url http://$at --seed 1 --start "$(date -u +%FT%TZ)" --devices 1000 --rate "$rate" \
    --readings-per-request "$each" --format "$format" --connections 8 --duration "${seconds}s" >"$work/run" 2>&1 ||
    { tail -3 "$work/run"; exit 1; }
  kill -TERM $running
  wait $running || true
  running=
  sed -n 's/^summary: //p' "$work/out"
}

printf '| gateway | one per request | 500 per request |\n| --- | --- | --- |\n'
for gateway in "$@"; do
  short=$(count "$gateway" 10 500 1 single)
  long=$(count "$gateway" 20 500 1 single)
  single=$(((long - short) / 5000))
  short=$(count "$gateway" 10 20000 500 ndjson)
  long=$(count "$gateway" 20 20000 500 ndjson)
  printf '| %s | %d | %d |\n' "$gateway" "$single" $(((long - short) / 200000))
done
