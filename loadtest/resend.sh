#!/usr/bin/env bash
# Sends readings again that PostgreSQL's statistics do not cover: a fleet sends a reading a minute, then comes
# ANALYZE, then some more minutes, and then those minutes again. Measures how long both take until they are
# stored, and how long a new reading of the other stream waits for its commit meanwhile.
#
#   loadtest/resend.sh GATEWAY STREAM DEVICES MINUTES AGAIN [SEED] [FLAGS OF THE GATEWAY ...]
#
#   loadtest/resend.sh target/release/wattgate meter 2000 400 30
#   loadtest/resend.sh target/release/wattgate vehicle 4000 60 20 1 --partition day
#
# STREAM is meter, vehicle or both. If DATABASE_URL names an empty database, it is used instead of the embedded
# server. Exits with 1 if the second time takes longer than twice the first plus a second, if a count is wrong,
# or if a reading of the other stream waits for more than 2 s.
set -euo pipefail
gateway=$1 stream=$2 devices=$3 minutes=$4 again=$5 seed=${6:-1}
shift $(($# < 6 ? $# : 6))
at=127.0.0.1:3972
data=$(mktemp -d /var/tmp/wattgate-resend.XXXXXX)
# PostgreSQL's user must be able to enter it.
chmod 755 "$data"
finish() {
  # shellcheck disable=SC2046 # one word a process
  kill $(jobs -p) 2>/dev/null || true
  wait || true
  rm -rf "$data"
}
trap finish EXIT

"$gateway" --data-dir "$data" --listen $at --wal-allow-volatile "$@" >"$data/out" 2>"$data/events" &
gateway_pid=$!
until curl -sf -o /dev/null http://$at/health/ready; do
  kill -0 $gateway_pid || { cat "$data/events"; exit 1; }
  sleep 0.1
done
# Another one may listen there.
kill -0 $gateway_pid
sql() {
  if [ -n "${DATABASE_URL:-}" ]; then
    psql -XAtq -c "$1" "$DATABASE_URL"
  else
    sh -c "$(sed -n 's/^database: //p' "$data/out") -XAtq" <<<"$1"
  fi
}
metric() { curl -s http://$at/metrics | awk -v start="wattgate_$1" 'index($0, start) == 1 { sum += $NF } END { printf "%d", sum }'; }
now() { date +%s.%N; }
streams=$stream
[ "$stream" != both ] || streams="meter vehicle"

# Midnight, three days ago. With partitions a day wide, the gateway refuses older readings.
base=$((($(date +%s) / 86400 - 3) * 86400))

# One request per minute and stream. The seed determines the values, so repeats are equal.
send() {
  local minute kind
  for minute in $(seq "$1" "$2"); do
    for kind in $streams; do
      awk -v kind="$kind" -v base="$base" -v devices="$devices" -v minute="$minute" -v seed="$seed" 'BEGIN {
        stamp = strftime("%Y-%m-%dT%H:%M:00Z", base + minute * 60, 1)
        for (n = 1; n <= devices; n++) {
          kwh = ((n * 7919 + minute * 104729 + seed) % 1000) / 1000
          if (kind == "meter")
            printf "{\"meterId\":\"R%06d\",\"kwhConsumedAc\":%.3f,\"voltage\":230,\"timestamp\":\"%s\"}\n", n, kwh, stamp
          else
            printf "{\"vehicleId\":\"R%06d\",\"soc\":50,\"kwhDeliveredDc\":%.3f,\"batteryTemp\":30,\"timestamp\":\"%s\"}\n", n, kwh, stamp
        }
      }' | curl -sS -o "$data/answer" -w '%{http_code}' -H 'content-type: application/x-ndjson' --data-binary @- \
        "http://$at/v1/ingestion/$kind" | grep -qE '^20[12]$' || { cat "$data/answer"; exit 1; }
    done
  done
}
stored() { until [ "$(metric wal_readings)" = 0 ]; do sleep 0.05; done; }
timed() {
  local began
  began=$(now)
  send "$1" "$2"
  stored
  awk -v a="$began" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'
}

other=vehicle
[ "$stream" != vehicle ] || other=meter
# Sends a new reading of another device every half second. Reports the longest wait for its commit.
probe() {
  local n=0 body
  while [ ! -e "$data/enough" ]; do
    n=$((n + 1))
    if [ $other = meter ]; then
      body="[{\"meterId\":\"other\",\"kwhConsumedAc\":1,\"voltage\":230,\"timestamp\":\"$(date -u -d "@$((base - 86400 + n))" +%FT%TZ)\"}]"
    else
      body="[{\"vehicleId\":\"other\",\"soc\":50,\"kwhDeliveredDc\":1,\"batteryTemp\":30,\"timestamp\":\"$(date -u -d "@$((base - 86400 + n))" +%FT%TZ)\"}]"
    fi
    curl -sS -o "$data/other" -w '%{http_code} %{time_total}\n' -H 'content-type: application/json' --data "$body" \
      "http://$at/v1/ingestion/$other?ack=committed"
    sleep 0.5
  done | awk '$1 != 201 { bad++ } $2 > most { most = $2 } END { printf "%.2f %d\n", most, bad }' >"$data/waits"
}

echo "$stream, $devices devices, $minutes minutes and $again more, seed $seed"
echo "known: stored in $(timed 0 $((minutes - 1))) s"
sql analyze
first=$(timed "$minutes" $((minutes + again - 1)))
before=$(metric readings_duplicate_total)
probe &
probing=$!
second=$(timed "$minutes" $((minutes + again - 1)))
touch "$data/enough"
wait $probing
read -r waited refused <"$data/waits"
repeats=$(($(metric readings_duplicate_total) - before))
wished=$((devices * again * $(wc -w <<<"$streams")))
echo "new: $first s; the same again: $second s; $repeats of $wished counted as repeats"
echo "another device's reading waited $waited s for its commit at most; $refused were refused"
awk -v a="$first" -v b="$second" -v w="$waited" -v bad=$((repeats != wished || refused > 0)) \
  'BEGIN { exit !(b <= 2 * a + 1 && w <= 2 && !bad) }' || { echo "WRONG"; exit 1; }
