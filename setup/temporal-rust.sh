#!/usr/bin/env bash
# Builds the tests and the worker on Temporal's Rust SDK (tests/temporal/rust), a workspace of its own in a build folder of its own.
#
#   setup/temporal-rust.sh              debug, for the tests
#   setup/temporal-rust.sh --release    for measurements; prints where the worker is
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=setup/env.sh
source setup/env.sh

wanted="1.92"
found="$(rustc --version | cut -d' ' -f2)"
if [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
  echo "temporal-rust: error: Temporal's Rust SDK needs Rust $wanted or newer, this is $found. With rustup: rustup update stable" >&2
  exit 1
fi

build="$(dirname "$ORCHESTRION_TEMPORAL_RUST")"
[ -d "$build" ] || echo "temporal-rust: compiling Temporal's Rust SDK once for this machine (a few minutes)"
cargo build --locked --manifest-path tests/temporal/rust/Cargo.toml --target-dir "$build" --bins "$@"
echo "temporal-rust: $build/$([ "${1:-}" = --release ] && echo release || echo debug)/worker"
