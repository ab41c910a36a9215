#!/usr/bin/env bash
# Checks a running gateway against its own OpenAPI document: schemathesis reads /openapi.json and generates valid and
# invalid requests. Every response must be one that the document describes.
#
#   tests/openapi/run.sh [GATEWAY] [EXAMPLES]
#
# GATEWAY is the binary (target/debug/wattgate), EXAMPLES the number of random requests per operation.
# It runs twice: without keys, and with keys required. In the second run, requests without a key must be refused.
# SCHEMATHESIS names the program, by default `st`. Each run tries new requests and prints its seed; SEED repeats a run.
set -euo pipefail
cd "$(dirname "$0")/../.."

gateway=${1:-target/debug/wattgate}
examples=${2:-40}
seed=${SEED:-$((RANDOM << 15 | RANDOM))}
st=${SCHEMATHESIS:-st}

data=$(mktemp -d /var/tmp/wattgate-openapi-XXXXXX)
pid=
stop() {
  [ -z "$pid" ] && return
  kill -INT "$pid" 2>/dev/null || true
  wait "$pid" || { echo "the gateway did not stop in order"; tail -n 20 "$data/err"; return 1; }
  pid=
}
cleanup() {
  stop || true
  rm -rf "$data"
}
trap cleanup EXIT

# Starts a gateway with these options, and sets `url` to its address.
start() {
  : >"$data/out"
  "$gateway" --listen 127.0.0.1:0 --data-dir "$data/data" --log-level warn "$@" >"$data/out" 2>"$data/err" &
  pid=$!
  for _ in $(seq 600); do
    url=$(sed -n 's/^listening on //p' "$data/out")
    [ -n "$url" ] && curl -fsS "$url/health/ready" >/dev/null 2>&1 && return
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "the gateway did not become ready"
  cat "$data/err"
  return 1
}

check() {
  PYTHONPATH=. "$st" --config-file tests/openapi/schemathesis.toml run "$url/openapi.json" --no-color --seed "$seed" --max-examples "$examples" \
    --generation-database none "$@"
}

echo "SEED=$seed repeats these requests"
start
# Data for the checks of live status and sessions: a device of each kind that has sent a reading.
curl -fsS "$url/v1/ingestion/meter?ack=committed" -H 'content-type: application/json' >/dev/null \
  -d '{"meterId":"M1","kwhConsumedAc":45.23,"voltage":240.5,"timestamp":"2024-02-09T15:30:00Z"}'
curl -fsS "$url/v1/ingestion/vehicle?ack=committed" -H 'content-type: application/json' >/dev/null \
  -d '{"vehicleId":"VEH-001","soc":80.5,"kwhDeliveredDc":41.3,"batteryTemp":31.5,"timestamp":"2024-02-09T15:30:00Z"}'
echo "without keys: $url"
check
stop

key=$("$gateway" keys create --data-dir "$data/data" --name openapi --rights ingest,read,admin 2>/dev/null)
start --auth keys
echo "with keys: $url"
check --header "Authorization: Bearer $key" --phases examples,coverage
stop
echo "the description holds"
