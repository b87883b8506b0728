#!/usr/bin/env bash
# Builds the engine and runs every test of the workspace, then says how many there were in all.
# With SOAK=1: only the soak tests, which wait for minutes. More arguments go to cargo test.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=setup/env.sh
source setup/env.sh

# The end-to-end tests start this binary; cargo alone builds it only for tests of its own package.
# The same selection as below, so that nothing is compiled twice with other features.
cargo build --workspace --bins --tests --examples

# Another clone's build may put its own binary in that place while the tests run: keep this one.
kept="$(mktemp -d)"
trap 'rm -rf "$kept"' EXIT
cp "$CARGO_TARGET_DIR/debug/orchestrion" "$kept/orchestrion"
export ORCHESTRION_BIN="$kept/orchestrion"
# The same for the services on the Rust SDK.
mkdir "$kept/examples"
cp "$CARGO_TARGET_DIR/debug/examples/steps" "$kept/examples/steps"
export ORCHESTRION_EXAMPLES="$kept/examples"
# And for the tests on Temporal's Rust SDK.
setup/temporal-rust.sh
mkdir "$kept/temporal-rust"
cp "$ORCHESTRION_TEMPORAL_RUST/check" "$kept/temporal-rust/check"
export ORCHESTRION_TEMPORAL_RUST="$kept/temporal-rust"

log="$kept/log"
[ ! -t 1 ] || export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-always}"

status=0
if [ "${SOAK:-}" = 1 ]; then
  cargo test --workspace --test soak --no-fail-fast "$@" -- --ignored --nocapture | tee "$log" || status=$?
else
  cargo test --workspace --no-fail-fast "$@" | tee "$log" || status=$?
fi

# Cargo runs one test program after the other and sums nothing up.
sed -e 's/\x1b\[[0-9;]*m//g' "$log" | awk '
  /^test result: / { for (i = 2; i <= NF; i++) {
    if ($i ~ /^passed/) passed += $(i - 1)
    if ($i ~ /^failed/) failed += $(i - 1)
    if ($i ~ /^ignored/) ignored += $(i - 1) } }
  END { printf "\ntotal: %d passed, %d failed, %d skipped\n", passed, failed, ignored }'
exit "$status"
