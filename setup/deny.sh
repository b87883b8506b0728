#!/usr/bin/env bash
# Checks the dependencies against deny.toml: licences, bans, sources, known vulnerabilities.
# cargo-deny is installed into the cache folder, pinned, when the machine has none.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=setup/env.sh
source setup/env.sh

version="0.20.2"
deny="$ORCHESTRION_CACHE/tools/bin/cargo-deny"
if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
  echo "check: installing cargo-deny $version into $ORCHESTRION_CACHE/tools (about 6 minutes on two cores)"
  # Not in the shared build folder: nothing else would ever use what it leaves there.
  env -u CARGO_TARGET_DIR cargo install cargo-deny --version "=$version" --locked --quiet --root "$ORCHESTRION_CACHE/tools"
fi

# The tests on Temporal's Rust SDK are a workspace of their own, held to the same rules.
check() {
  "$deny" check "$@"
  "$deny" --config deny.toml --manifest-path tests/temporal/rust/Cargo.toml check "$@"
}

check licenses bans sources

# The advisories are a git repository of their own, which not every machine may reach.
if timeout 120 "$deny" fetch db 2>/dev/null; then
  check --disable-fetch advisories
else
  echo "check: SKIPPED the advisories: their database cannot be reached from this machine. Licences, bans and sources were checked"
fi
