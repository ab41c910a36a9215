#!/usr/bin/env bash
# A charging session and its readings, with curl alone.
#
#   WATTGATE_URL=http://127.0.0.1:3000 WATTGATE_KEY=… integrations/session.sh
#
# The key needs the rights to ingest and to read; without WATTGATE_KEY none is sent.
set -euo pipefail
url=${WATTGATE_URL:-http://127.0.0.1:3000}
key=()
[ -n "${WATTGATE_KEY:-}" ] && key=(-H "Authorization: Bearer $WATTGATE_KEY")

# Sends a body, and sends it again after 408, 429, 5xx and where nobody answers: curl waits as long as
# Retry-After says, else one second and then twice as long each time. Sending again is always safe.
post() {
  curl -fsS --retry 8 --retry-connrefused --retry-max-time 300 ${key[@]+"${key[@]}"} \
    "$url$1" -H "Content-Type: $2" --data-binary @-
  echo
}

now=$(date +%s)
at() { date -u -d "@$((now - 60 * $1))" +%Y-%m-%dT%H:%M:%SZ; } # GNU date

echo "{\"sessionId\":\"curl-$now\",\"vehicleId\":\"curl-car\",\"meterId\":\"curl-meter\",\"startedAt\":\"$(at 60)\"}" |
  post /v1/sessions application/json

# A reading a line. An answer of 202 can hold `errors`: those readings were wrong and stay so; send them no more.
for minute in $(seq 59 -1 0); do
  echo "{\"meterId\":\"curl-meter\",\"kwhConsumedAc\":0.12,\"voltage\":231,\"timestamp\":\"$(at "$minute")\"}"
done | post /v1/ingestion/meter application/x-ndjson
for minute in $(seq 59 -1 0); do
  echo "{\"vehicleId\":\"curl-car\",\"soc\":81,\"kwhDeliveredDc\":0.108,\"batteryTemp\":30.5,\"timestamp\":\"$(at "$minute")\"}"
done | post '/v1/ingestion/vehicle?ack=committed' application/x-ndjson

echo "{\"endedAt\":\"$(at 0)\"}" | post "/v1/sessions/curl-$now/end" application/json
curl -fsS ${key[@]+"${key[@]}"} "$url/v1/sessions/curl-$now"
