#!/usr/bin/env bash
# Measures other layouts of history: the readings per second that two connections store with COPY, one transaction
# per batch, the processor time of the server, and the cost of a live upsert. Prints one line per layout.
#
#   loadtest/layouts/run.sh psql -h … -p … -U … -d …      (as the gateway prints it)
#
# The user must be a superuser: COPY reads files of the server. Everything is in a schema
# `wattgate_layouts`, which is dropped at the end. READINGS (4,800,000) and DIR (a directory that the server
# can write) may be set. Run it more than once and compare within a run. On a shared machine,
# compare the processor time.
set -euo pipefail
PSQL=("$@")
[ "${#PSQL[@]}" -gt 0 ] || { echo "usage: $0 psql -h … -U … -d …"; exit 2; }
READINGS=${READINGS:-4800000}
DEVICES=20000
DIR=${DIR:-/var/tmp/wattgate-layouts}
mkdir -p "$DIR"
chmod 777 "$DIR"
sql() { "${PSQL[@]}" -X -q -v ON_ERROR_STOP=1 -At "$@"; }
seconds() { date +%s.%N; }
# figures READINGS BEGAN ENDED CPU CPU: readings a second, microseconds of the server's processor time.
figures() {
  awk -v n="$1" -v a="$2" -v b="$3" -v c="$4" -v d="$5" -v hz="$(getconf CLK_TCK)" \
    'BEGIN { printf "%9.0f readings/s %6.2f µs of CPU each", n / (b - a), (d - c) / hz / n * 1e6 }'
}

postmaster=$(sql -c "select split_part(pg_read_file('postmaster.pid'), E'\\n', 1)")
# CPU ticks used by the server's ended sessions. The last session takes a moment to end.
ticks() {
  sleep 0.5
  sed 's/.*) //' "/proc/$postmaster/stat" | awk '{ print $14 + $15 }'
}

sql -f "$(dirname "$0")/tables.sql"
# The devices of a connection are, for `range`, the lower or the upper half; for `mixed`, every second one, as if
# divided by a hash. Each batch has all devices of its connection, so its size determines the rows per device.
sql -f "$(dirname "$0")/files.sql"

# make FORM ROWS SPREAD: files $DIR/FORM-ROWS-SPREAD.CONNECTION.BATCH
make() {
  local batches=$((READINGS / 2 / $2))
  for connection in 0 1; do
    sql -c "call wattgate_layouts.make('$1', $2, '$3', $connection, $batches, '$DIR')"
  done
}

# copy TABLE FORM ROWS SPREAD: the figures of two connections
copy() {
  local batches=$((READINGS / 2 / $3)) began ended before
  sql -c "truncate wattgate_layouts.$1" -c checkpoint
  before=$(ticks)
  began=$(seconds)
  for connection in 0 1; do
    for ((batch = 0; batch < batches; batch++)); do
      echo "copy wattgate_layouts.$1 from '$DIR/$2-$3-$4.$connection.$batch' (format binary);"
    done | sql -f - &
  done
  wait
  ended=$(seconds)
  figures $((batches * 2 * $3)) "$began" "$ended" "$before" "$(ticks)"
}

say() { printf '%-76s %s\n' "$1" "$2"; }

for rows in 10000 40000 200000; do
  for spread in range mixed; do
    make rows "$rows" "$spread"
    say "rows, primary key, batches of $rows, devices $spread" "$(copy history rows "$rows" "$spread")"
    [ "$rows-$spread" = 40000-range ] || rm -f "$DIR/rows-$rows-$spread".*
  done
done
say "rows, no index at all, batches of 40000" "$(copy history_bare rows 40000 range)"
before=$(ticks)
began=$(seconds)
sql -c "set maintenance_work_mem = '512MB'; set max_parallel_maintenance_workers = 0" \
  -c "alter table wattgate_layouts.history_bare add primary key (meter_id, ts)"
say "  and its primary key built in bulk afterwards, one connection" \
  "$(figures "$READINGS" "$began" "$(seconds)" "$before" "$(ticks)")"
say "rows, BRIN on time only, batches of 40000" "$(copy history_brin rows 40000 range)"
for rows in 40000 200000; do
  make chunks "$rows" range
  say "chunks of $((rows / (DEVICES / 2))) readings in arrays, primary key, batches of $rows" \
    "$(copy history_chunks chunks "$rows" range)"
done
say "  size of a reading: rows" "$(sql -c "select round(pg_total_relation_size('wattgate_layouts.history') / $READINGS.0)") bytes"
say "  size of a reading: chunks" "$(sql -c "select round(pg_total_relation_size('wattgate_layouts.history_chunks') / $READINGS.0)") bytes"

# A live upsert of all devices, as the gateway sends it, and as an UPDATE first.
sql -f "$(dirname "$0")/live.sql" | while IFS='|' read -r what micros; do say "$what" "$micros µs a device"; done
sql -c "set client_min_messages = warning" -c "drop schema wattgate_layouts cascade"
rm -f "$DIR"/rows-* "$DIR"/chunks-*
