#!/usr/bin/env bash
# Builds the fuzz targets on the stable toolchain (counters of coverage, no sanitizer: the gateway has no
# unsafe code of its own) and runs each from its corpus.
#
#   fuzz/run.sh [SECONDS] [TARGET…]
#
# SECONDS per target (30), as many targets at once as there are processors. Findings go to fuzz/artifacts. New
# inputs of the corpus stay out of the repository, in fuzz/target/corpus.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-30}
[ $# -gt 0 ] && shift
[ $# -eq 0 ] && set -- decode timestamp frames copy

host=$(rustc -vV | sed -n 's/^host: //p')
# As cargo-fuzz sets them. --target keeps them away from build scripts.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
  cargo build --release --locked --target "$host" --target-dir target

# Fuzzes one target: its output in one piece, its exit status.
fuzz() {
  local target=$1 output status=0
  mkdir -p "target/corpus/$target" "artifacts/$target"
  output=$("target/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 \
    -verbosity=0 -print_final_stats=1 -close_fd_mask=0 -artifact_prefix="artifacts/$target/" \
    "target/corpus/$target" "corpus/$target" 2>&1) || status=$?
  printf '\n== %s, %s s\n%s\n' "$target" "$seconds" "$output"
  return "$status"
}
export -f fuzz
export host seconds
# shellcheck disable=SC2016 # the inner shell expands it
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -euo pipefail -c 'fuzz "$1"' _ {}
