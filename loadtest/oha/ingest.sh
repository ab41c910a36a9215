#!/usr/bin/env bash
# Ingestion load with oha: requests whose readings are new.
#
# oha sends a fixed body or, with -Z, a line of a file each request. A line is one JSON reading here,
# or an array of BATCH readings. oha picks the lines at random: some come twice (the gateway stores a
# repeat once) and some never. The file holds SPREAD times as many lines as there are requests, all
# different (device, time) pairs, so that few repeat: 37% of the requests at 1, 11% at 4, 6% at 8.
# Compare the gateway's own stored and duplicate counters, not the number of requests. For a
# load without repeats and an exact count use `wattgate-loadtest run`.
#
# Beside oha's own figures it prints what became of the readings, from the gateway's counters.
#
#   URL=http://127.0.0.1:3000 STREAM=meter REQUESTS=100000 CONNECTIONS=256 DEVICES=20000 BATCH=1 \
#     SPREAD=4 [KEY=… RATE=requests-a-second OHA=path/to/oha] oha/ingest.sh [options of oha]
set -euo pipefail

url=${URL:-http://127.0.0.1:3000}
stream=${STREAM:-meter}
requests=${REQUESTS:-100000}
connections=${CONNECTIONS:-256}
devices=${DEVICES:-20000}
batch=${BATCH:-1}
spread=${SPREAD:-4}
bodies=$(mktemp)
trap 'rm -f "$bodies"' EXIT

case $stream in
meter | vehicle) ;;
*)
    echo "STREAM must be meter or vehicle" >&2
    exit 2
    ;;
esac

# A day ago, with this run's own microseconds, so that two runs share no time.
start=$(($(date +%s) - 86400))
micros=$(date +%6N)
TZ=UTC awk -v lines="$((requests * spread))" -v batch="$batch" -v devices="$devices" \
    -v start="$start" -v micros="$micros" -v stream="$stream" '
    function reading(i,   at, kwh) {
        at = strftime("%Y-%m-%dT%H:%M:%S", start + int(i / devices)) "." micros "Z"
        kwh = sprintf("0.%06d", (i * 7919) % 100000)
        if (stream == "meter")
            return sprintf("{\"meterId\":\"OHA-M-%06d\",\"kwhConsumedAc\":%s,\"voltage\":230.5,\"timestamp\":\"%s\"}", i % devices, kwh, at)
        return sprintf("{\"vehicleId\":\"OHA-V-%06d\",\"soc\":55.5,\"kwhDeliveredDc\":%s,\"batteryTemp\":31.5,\"timestamp\":\"%s\"}", i % devices, kwh, at)
    }
    BEGIN {
        for (line = 0; line < lines; line++) {
            if (batch == 1) {
                print reading(line)
                continue
            }
            printf "["
            for (i = 0; i < batch; i++)
                printf "%s%s", (i ? "," : ""), reading(line * batch + i)
            print "]"
        }
    }' >"$bodies"

args=(-n "$requests" -c "$connections" -m POST -T application/json -Z "$bodies" --no-tui)
if [[ -n ${RATE:-} ]]; then
    # With a rate, latencies count from the scheduled moment.
    args+=(-q "$RATE" --latency-correction)
fi
if [[ -n ${KEY:-} ]]; then
    args+=(-H "Authorization: Bearer $KEY")
fi
# The sum of one of the gateway's counters of readings, over all its labels.
readings() {
    curl -sf "$url/metrics" | awk -v name="wattgate_readings_$1_total" \
        'index($1, name) == 1 { sum += $2 } END { printf "%.0f", sum }'
}

counters=(accepted rejected stored duplicate quarantined)
before=()
for counter in "${counters[@]}"; do before+=("$(readings "$counter")"); done
"${OHA:-oha}" "${args[@]}" "$@" "$url/v1/ingestion/$stream"
echo
echo "readings, by the gateway's counters (stored and duplicate go on until the log is empty):"
for i in "${!counters[@]}"; do
    echo "  ${counters[$i]} $(($(readings "${counters[$i]}") - before[i]))"
done
