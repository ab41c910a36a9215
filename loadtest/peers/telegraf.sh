#!/usr/bin/env bash
# Telegraf and Wattgate under the same load, in turns, on the same kind of server: what each acknowledges and stores,
# and the processor time of each and of PostgreSQL. Prints a table in Markdown.
#
#   loadtest/peers/telegraf.sh GATEWAY LOADTEST TELEGRAF BIN [SECONDS] [ROUNDS]
#
#   loadtest/peers/telegraf.sh target/release/wattgate target/release/wattgate-loadtest telegraf \
#     /usr/lib/postgresql/15/bin 20 2
#
# BIN holds PostgreSQL's programs. The server is made anew with PostgreSQL's defaults; SETTINGS changes them, as
# SETTINGS='-c jit=off'. Each turn has an empty database. LOADS chooses among one, batch and pipelined;
# TELEGRAF_CONNECTIONS is how many Telegraf may store with (its default is 1).
#
# wrk sends (Debian and Ubuntu have a package), from readings.lua: unique readings of 20,000 devices, dated now. A bare
# responder that stores nothing (`wattgate-loadtest noop`, one thread) shows what HTTP alone costs. Telegraf, with the
# plugins of telegraf.conf and no others:
#
#   go install -tags custom,inputs.http_listener_v2,outputs.postgresql,parsers.json \
#     github.com/influxdata/telegraf/cmd/telegraf@v1.37.2
#
# Stored per second counts from the first request until the last reading is in its table, and every row is counted.
# A program that stored fewer readings than it acknowledged is reported, and the exit status is 1.
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,/^set/{/^#/p}' "$0" >&2; exit 2; }
gateway=$(realpath "$1") loadtest=$(realpath "$2") telegraf=$(realpath "$(command -v "$3")") bin=$4
seconds=${5:-20} rounds=${6:-2}
read -ra settings <<<"${SETTINGS:-}"
read -ra loads <<<"${LOADS:-one batch}"
here=$(dirname "$(realpath "$0")")
devices=20000 threads=2
# Once nothing was stored for so long, all is.
quiet=3

dir=$(mktemp -d /var/tmp/wattgate-peers.XXXXXX)
mkdir "$dir/server"
chmod 755 "$dir"
as_user=()
if [ "$(id -u)" = 0 ]; then
  # PostgreSQL refuses root.
  as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
  chown 65534 "$dir/server"
fi
server_pid='' program_pid=''
stop_program() {
  [ -n "$program_pid" ] || return 0
  kill -TERM "$program_pid" 2>/dev/null || true
  wait "$program_pid" || true
  program_pid=''
}
finish() {
  stop_program
  if [ -n "$server_pid" ]; then
    kill -INT "$server_pid" 2>/dev/null || true
    wait "$server_pid" || true
  fi
  rm -rf "$dir"
}
trap finish EXIT

sql() { psql -XAtq -h "$dir/server" -U postgres -d "$1" -c "$2"; }
(cd / && "${as_user[@]}" "$bin/initdb" --auth=trust --encoding=UTF8 --locale=C -U postgres \
  -D "$dir/server/cluster" >/dev/null)
# Only the address is set, and what SETTINGS names.
(cd / && exec "${as_user[@]}" "$bin/postgres" -c listen_addresses= -k "$dir/server" \
  "${settings[@]}" -D "$dir/server/cluster") 2>"$dir/server.log" &
server_pid=$!
until sql postgres 'select 1' >"$dir/answer" 2>&1; do
  kill -0 "$server_pid" || { cat "$dir/server.log" >&2; exit 1; }
  sleep 0.1
done

now() { date +%s.%N; }
ticks=$(getconf CLK_TCK)
# The processor time of a process, and where the second word is 1, of its children too, in seconds.
spent() {
  { cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v pid="$1" -v server="$2" -v ticks="$ticks" '{
    own = $1
    sub(/^.*\) /, "")
    if (own == pid) sum += $12 + $13 + (server ? $14 + $15 : 0)
    else if (server && $2 == pid) sum += $12 + $13
  } END { printf "%.2f", sum / ticks }'
}
start() {
  local database=$1
  case $program in
  Wattgate)
    at=127.0.0.1:3973 table=meter_telemetry_history
    DATABASE_URL="host=$dir/server user=postgres dbname=$database" "$gateway" --data-dir "$dir/data" \
      --listen $at --wal-allow-volatile >"$dir/out" 2>&1 &
    program_pid=$!
    until curl -sf -o /dev/null http://$at/health/ready; do
      kill -0 "$program_pid" || { cat "$dir/out" >&2; exit 1; }
      sleep 0.1
    done
    ;;
  Telegraf)
    at=127.0.0.1:8186 table=meter
    local connections="pool_max_conns=${TELEGRAF_CONNECTIONS:-1}"
    PGURL="host=$dir/server user=postgres dbname=$database $connections" \
      "$telegraf" --config "$here/telegraf.conf" >"$dir/out" 2>&1 &
    program_pid=$!
    until curl -s -o /dev/null http://$at/; do
      kill -0 "$program_pid" || { cat "$dir/out" >&2; exit 1; }
      sleep 0.1
    done
    ;;
  bare)
    at=127.0.0.1:3974 table=''
    "$loadtest" noop --listen $at >"$dir/out" 2>&1 &
    program_pid=$!
    until curl -s -o /dev/null http://$at/; do sleep 0.1; done
    ;;
  esac
}
stored_bytes() {
  sql peers "select coalesce(sum(pg_relation_size(oid)), 0) from pg_class
    where relkind = 'r' and relname like '$table%'"
}
# Waits until the table no longer grows; the moment when it last did.
last_stored() {
  local bytes last='' moment
  moment=$(now)
  while awk -v a="$moment" -v b="$(now)" -v quiet=$quiet 'BEGIN { exit !(b - a < quiet) }'; do
    bytes=$(stored_bytes)
    if [ "$bytes" != "$last" ]; then
      last=$bytes moment=$(now)
    fi
    sleep 0.2
  done
  echo "$moment"
}

missing=0
# One turn of a program under a load: a row of the table.
turn() {
  local what=$1 connections=$2 readings=$3 pipelined=$4 began ended own_before server_before own server result
  rm -rf "$dir/data"
  sql postgres 'drop database if exists peers with (force)' 2>/dev/null
  sql postgres 'create database peers'
  sql postgres checkpoint
  start peers
  own_before=$(spent "$program_pid" 0) server_before=$(spent "$server_pid" 1) began=$(now)
  result=$(wrk -t $threads -c "$connections" -d "${seconds}s" --timeout 30s -s "$here/readings.lua" \
    "http://$at/v1/ingestion/meter" -- $devices "$readings" "$pipelined" $threads | grep '^RESULT')
  local answers refused broken micros p50 p99 acked rows=0
  read -r _ answers refused broken micros p50 p99 <<<"$result"
  acked=$(((answers - refused) * readings))
  ended=$began
  if [ -n "$table" ]; then ended=$(last_stored); fi
  own=$(spent "$program_pid" 0) server=$(spent "$server_pid" 1)
  if [ -n "$table" ]; then rows=$(sql peers "select count(*) from $table"); fi
  stop_program
  if [ -n "$table" ] && [ "$rows" -lt "$acked" ]; then
    missing=1
    echo "$program stored $rows of $acked acknowledged readings" >&2
    tail -n 3 "$dir/out" >&2
  fi
  awk -v what="$what" -v program="$program" -v rows="$rows" -v acked="$acked" -v micros="$micros" \
    -v seconds="$(awk -v a="$began" -v b="$ended" 'BEGIN { print b - a }')" -v refused="$refused" \
    -v broken="$broken" -v own="$(awk -v a="$own_before" -v b="$own" 'BEGIN { print b - a }')" \
    -v server="$(awk -v a="$server_before" -v b="$server" 'BEGIN { print b - a }')" -v p50="$p50" -v p99="$p99" 'BEGIN {
      stored = rows ? sprintf("%.0f", rows / seconds) : ""
      database = rows ? sprintf("%.1f", server * 1e6 / rows) : ""
      printf "| %s | %s | %s | %.0f | %.1f | %s | %.1f | %.1f | %d |\n", what, program, stored,
        acked / (micros / 1e6), own * 1e6 / (rows ? rows : acked), database, p50 / 1000, p99 / 1000, refused + broken
    }'
}

version=$("$telegraf" --version)
case $version in
*unknown*) version="Telegraf $(go version -m "$telegraf" | awk '$1 == "mod" { print $3 }')" ;;
esac
wrk_version=$({ wrk -v 2>&1 || true; } | awk 'NR == 1 { print $1, $2 }')
processor=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
postgresql=$("$bin/postgres" --version | awk '{ print $3 }')
cat <<TEXT
$(nproc) cores ($processor); PostgreSQL $postgresql with ${SETTINGS:-its defaults}; $("$gateway" --version); $version with \
${TELEGRAF_CONNECTIONS:-1} connection(s) to PostgreSQL; $wrk_version. $seconds s a turn, $devices devices, one reading a
device and round in random order, dated now.

- Wattgate acknowledges (202) once the reading is synced to its log on disk. It stores each reading once, and a
  repeat costs nothing else. It also keeps live status and rollups, which are in PostgreSQL's time.
- Telegraf acknowledges (204) once the reading is in its buffer in memory. What is in the buffer is lost if the process
  or the machine ends at once, and the oldest are overwritten if the buffer is full. A repeat violates the primary
  key; Telegraf then discards the batch that it is in.
- The bare responder stores nothing.

| load | program | stored/s | acknowledged/s | program's µs/reading | PostgreSQL's µs/reading | p50 ms | p99 ms | failed |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
TEXT
for _ in $(seq "$rounds"); do
  for load in "${loads[@]}"; do
    for program in Telegraf Wattgate bare; do
      case $load in
      one) turn '1 per request, 256 connections' 256 1 1 ;;
      batch) turn '500 per request, 8 connections' 8 500 1 ;;
      pipelined) turn '1 per request, 16 pipelined, 64 connections' 64 1 16 ;;
      *) echo "no such load: $load" >&2; exit 2 ;;
      esac
    done
  done
done
[ $missing = 0 ]
