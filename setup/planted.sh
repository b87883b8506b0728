#!/usr/bin/env bash
# Proves the simulation: plants bugs in a scratch copy of the sources, one awake at a time, and prints which invariant found each and
# after how many seeds. Takes minutes; nothing of it is in the sources themselves.
#
#   setup/planted.sh                 every bug
#   setup/planted.sh open_the_fence  one of them
#   SEEDS=1000 setup/planted.sh      how many seeds each gets (2,000 unless said)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=setup/env.sh
source setup/env.sh
root="$PWD"
seeds="${SEEDS:-2000}"

# To cargo the scratch copy is this workspace, with the same crates: what is compiled of it must not be taken for theirs, nor theirs for it.
export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/planted"

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
# As new as can be (-m), so that all of it is compiled.
tar --exclude-vcs --exclude=./target -cf - . | tar -xmf - -C "$scratch"
cd "$scratch"
for patch in "$root"/tests/planted/*.patch; do
  patch -p1 -s -F3 --no-backup-if-mismatch -i "$patch" || {
    echo "$patch does not fit the sources any more: plant its bug anew" >&2
    exit 1
  }
done
cargo build --quiet --profile sim --package orchestrion-tests --bin sim
program="$CARGO_TARGET_DIR/sim/sim"
cp "$program" "$scratch/sim"

missed=0
echo "| bug | found by | seeds |"
echo "|---|---|---|"
for patch in "$root"/tests/planted/*.patch; do
  bug="$(basename "$patch" .patch)"
  [ "$bug" != 00_switch ] || continue
  [ $# -eq 0 ] || [[ " $* " == *" $bug "* ]] || continue
  found="$(PLANTED="$bug" FROM=1 SEEDS="$seeds" THREADS=1 "$scratch/sim" 2>/dev/null | grep -o 'make sim SEED=.*' | tail -1 || true)"
  if [ -z "$found" ]; then
    missed=$((missed + 1))
    echo "| $bug | **nobody** | more than $seeds |"
  else
    seed="$(sed -E 's/make sim SEED=([0-9]+) .*/\1/' <<<"$found")"
    invariant="$(sed -E 's/[^#]*# ([a-z_]+):.*/\1/' <<<"$found")"
    echo "| $bug | $invariant | $seed |"
  fi
done
exit "$((missed > 0))"
