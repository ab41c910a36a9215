#!/usr/bin/env bash
# A charging session and its readings, with nothing but curl.
#
#   WATTGATE_URL=http://127.0.0.1:3000 WATTGATE_KEY=… integrations/session.sh
#
# If it is sourced, it only defines the functions `request` and `post`, and sends nothing.
# The key needs the rights `ingest` and `read`. Without WATTGATE_KEY no key is sent.
set -euo pipefail
url=${WATTGATE_URL:-http://127.0.0.1:3000}
key=()
[ -n "${WATTGATE_KEY:-}" ] && key=(-H "Authorization: Bearer $WATTGATE_KEY")

give_up=${WATTGATE_GIVE_UP_SECONDS:-300}
work=$(mktemp -d)
: >"$work/head"
trap 'rm -rf "$work"' EXIT

# Sends a request, and repeats it after 408, 425, 429, any 5xx, or an incomplete answer (a failure of the connection,
# the name lookup or TLS, a reset, a truncated body). That is always safe. It waits for the time in Retry-After.
# Without that header it waits half a second, then twice as long each time, plus some jitter. (curl's own --retry
# leaves out 507, 520 to 529, and truncated answers.)
request() {
  local path=$1 wait_ms=500 pause_ms status why after began=$SECONDS
  shift
  while :; do
    if status=$(curl -sS --max-time 30 -o "$work/answer" -D "$work/head" -w '%{http_code}' \
      ${key[@]+"${key[@]}"} "$@" "$url$path" 2>"$work/why"); then
      case $status in
        2*) cat "$work/answer"; echo; return ;;
        408 | 425 | 429 | 5*) why=$status ;;
        *) echo "$path: $status $(cat "$work/answer")" >&2; return 1 ;;
      esac
    else
      case $? in
        # The command itself is wrong: its options, the URL, a file.
        2 | 3 | 4 | 26 | 27 | 43 | 48) cat "$work/why" >&2; return 1 ;;
        *) why=$(cat "$work/why") ;;
      esac
    fi
    pause_ms=$wait_ms
    after=$(tr -d '\r' <"$work/head" 2>/dev/null | sed -n 's/^[Rr]etry-[Aa]fter: *//p' | tail -1)
    : >"$work/head"
    case $after in
      '') ;;
      *[!0-9]*) after=$(($(date -d "$after" +%s 2>/dev/null || echo 0) - $(date +%s))) ;; # a date
    esac
    # 0, or a time that has passed, would be a loop without a pause.
    [ "${after:-0}" -gt 0 ] && pause_ms=$((after * 1000))
    pause_ms=$((pause_ms + RANDOM % (pause_ms / 4 + 1)))
    if [ $((SECONDS - began + pause_ms / 1000)) -ge "$give_up" ]; then
      echo "$path: given up, the last answer was $why" >&2
      return 1
    fi
    echo "$path: $why, again in $((pause_ms / 1000)).$(printf %03d $((pause_ms % 1000))) s" >&2
    sleep "$((pause_ms / 1000)).$(printf %03d $((pause_ms % 1000)))"
    wait_ms=$((wait_ms < 30000 ? 2 * wait_ms : 60000))
  done
}

# Sends a body that is read once and sent as often as needed.
post() {
  cat >"$work/body"
  request "$1" -H "Content-Type: $2" --data-binary "@$work/body"
}

[ "${BASH_SOURCE[0]}" = "$0" ] || return 0

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
request "/v1/sessions/curl-$now"
