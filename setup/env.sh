#!/usr/bin/env bash
# shellcheck shell=bash
# What every build of Orchestrion needs to know of this machine, in one place.
#
#   source setup/env.sh          in bash
#   eval "$(setup/env.sh)"       in any other shell (run it: it prints the same as `export` lines)
#
# It only names things. `make setup` (setup/setup.sh) makes them.
#
# One build folder for all clones: everything that comes from a registry is compiled once. To cargo,
# though, the workspace's own crates are the same in each clone: setup/setup.sh, which every target of
# make calls, has them compiled anew in the clone that comes next. With cargo alone, or in two clones
# at a time, set CARGO_TARGET_DIR yourself to keep them apart.

__orchestrion_setup="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)"

# The version of the crate that compiles RocksDB, as a Cargo.lock has it ("0.19.0+11.8.1").
__orchestrion_rocksdb_version() {
  sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p;}' "$1"
}

export ORCHESTRION_CACHE="${ORCHESTRION_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/orchestrion}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$ORCHESTRION_CACHE/target}"
__orchestrion_rocksdb="$(__orchestrion_rocksdb_version "$__orchestrion_setup/rocksdb/Cargo.lock")"
export ROCKSDB_LIB_DIR="$ORCHESTRION_CACHE/rocksdb-$__orchestrion_rocksdb/lib"
export ROCKSDB_STATIC=1
export ORCHESTRION_VENV="$ORCHESTRION_CACHE/venv"
export ORCHESTRION_NODE_PATH="$ORCHESTRION_CACHE/node/node_modules"
export ORCHESTRION_TEMPORAL_RUST="${ORCHESTRION_TEMPORAL_RUST:-$ORCHESTRION_CACHE/temporal-rust/debug}"

__orchestrion_names="ORCHESTRION_CACHE CARGO_TARGET_DIR ROCKSDB_LIB_DIR ROCKSDB_STATIC ORCHESTRION_VENV ORCHESTRION_NODE_PATH ORCHESTRION_TEMPORAL_RUST"

# Only where setup had to bring its own libclang (no Debian package could be installed).
if [ -e "$ORCHESTRION_CACHE/libclang/libclang.so" ]; then
  export LIBCLANG_PATH="$ORCHESTRION_CACHE/libclang"
  # That library comes without clang's own C headers: lend it the compiler's.
  export BINDGEN_EXTRA_CLANG_ARGS="-I$ORCHESTRION_CACHE/libclang/include"
  __orchestrion_names="$__orchestrion_names LIBCLANG_PATH BINDGEN_EXTRA_CLANG_ARGS"
fi

# Run, not sourced: print.
if [ "${BASH_SOURCE[0]:-}" = "$0" ]; then
  for __orchestrion_name in $__orchestrion_names; do
    printf 'export %s=%q\n' "$__orchestrion_name" "${!__orchestrion_name}"
  done
fi
unset __orchestrion_setup __orchestrion_rocksdb __orchestrion_names __orchestrion_name
unset -f __orchestrion_rocksdb_version
