#!/bin/sh
# The dashboard in a real Chromium: sh tests/browser/run.sh
#
# Needs npm and Chromium (Debian: apt-get install chromium npm). Without them it prints SKIPPED.
# WATTGATE names the binary, by default target/debug/wattgate.
set -eu
cd "$(dirname "$0")"

CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$CHROMIUM" ] || ! command -v npm >/dev/null 2>&1; then
  echo "SKIPPED: Chromium or npm is not installed"
  exit 0
fi
if ! npm ci --no-audit --no-fund --silent; then
  echo "SKIPPED: npm cannot fetch the packages"
  exit 0
fi
WATTGATE=${WATTGATE:-../../target/debug/wattgate}
if [ ! -x "$WATTGATE" ]; then
  echo "$WATTGATE is not built: cargo build"
  exit 1
fi
export CHROMIUM WATTGATE
exec node --test --test-concurrency=1 dashboard.test.mjs sizes.test.mjs operators.test.mjs
