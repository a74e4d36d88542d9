#!/usr/bin/env bash
# Runs all checks and tests, and ends with one line `N passed, N failed` that counts every test of both languages.
# A failing part does not keep the later ones from running; any failure makes the exit status 1.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"

logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT
passed=0
failed=0

say() { printf '\n== %s\n' "$*"; }

# check NAME COMMAND…: counts as one test.
check() {
  say "$1"
  if "${@:2}"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# Without colours, so that the counts can be read.
count() { sed 's/\x1b\[[0-9;]*m//g' "$1" | sed -nE "$2" | tail -n 1; }

rust_tests() {
  say "Rust tests"
  local status summary good bad
  CARGO_TERM_COLOR=never cargo nextest run --workspace --features wasel-server/simulated-phones --no-fail-fast 2>&1 | tee "$logs/rust"
  status=${PIPESTATUS[0]}
  # Such as: Summary [ 1.2s] 9 tests run: 7 passed, 1 failed, 1 timed out, 3 skipped
  summary="$(count "$logs/rust" 's/^ *Summary .* tests? run: (.*)$/\1/p')"
  good="$(sed -nE 's/^([0-9]+) passed.*/\1/p' <<<"$summary")"
  bad="$(grep -oE '[0-9]+ (failed|timed out|exec failed)' <<<"$summary" | awk '{ n += $1 } END { print n + 0 }')"
  # No summary: it did not get as far as running.
  if [ "$status" != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
  passed=$((passed + ${good:-0}))
  failed=$((failed + bad))
}

# client_tests DIRECTORY FILE…: those files, or all.
client_tests() {
  local status good bad
  # One file after the other, for each starts a server of its own.
  (cd "$1" && shift && node --test --test-concurrency=1 \
    --test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination="$logs/js" "$@")
  status=$?
  good="$(count "$logs/js" 's/^# pass ([0-9]+)$/\1/p')"
  bad=0
  for word in fail cancelled; do
    bad=$((bad + $(count "$logs/js" "s/^# $word ([0-9]+)\$/\1/p" | grep . || echo 0)))
  done
  if [ "$status" != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
  passed=$((passed + ${good:-0}))
  failed=$((failed + bad))
}

check "Formatting" cargo fmt --all --check
check "Lints" cargo clippy --workspace --all-targets -- -D warnings
check "Lints of the build without linked phones" cargo clippy -p wasel-server --no-default-features -- -D warnings
check "Documentation" scripts/check-docs.sh
check "Licences" scripts/check-licences.sh
rust_tests
if [ -z "${WASEL_BIN:-}" ]; then
  say "The server as it is released, beside the one with simulated phones that the tests were run with"
  built="$(cargo metadata --format-version 1 --no-deps | node -pe 'JSON.parse(require("fs").readFileSync(0)).target_directory')/debug"
  if cp "$built/wasel" "$built/wasel-with-simulated-phones" && cargo build -p wasel-server; then
    export WASEL_BIN="$built/wasel-with-simulated-phones" WASEL_PLAIN_BIN="$built/wasel"
  else
    failed=$((failed + 1))
  fi
fi
# The browser tests build the example page, which needs the hooks.
check "The React hooks: building" npm run --silent build -w @wasel/react
check "The React hooks: types" npm run --silent check -w @wasel/react
check "The example page: types" npm run --silent check -w whatsapp-settings
if [ -n "${WASEL_BIN:-}" ]; then
  say "Tests with the real clients: supabase-js, Twilio's SDK, a browser"
  client_tests tests/js
  say "The same with supabase-js on a Postgres that is not ours, set up as a Supabase project's"
  WASEL_TEST_GIVEN_POSTGRES=1 client_tests tests/js {supabase,rest,auth,storage,realtime}.test.mjs
  say "Tests of the React hooks"
  client_tests packages/react
fi

printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
