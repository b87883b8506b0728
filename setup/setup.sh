#!/usr/bin/env bash
# Puts in place what building and testing Orchestrion needs and a machine may not have.
#
# Run it as often as you like: what is there is left alone, what an earlier run left half-done is
# done again. Two runs at once are safe: the second waits for the first. Everything goes into
# ~/.cache/orchestrion (or $XDG_CACHE_HOME/orchestrion), but for Debian packages, which are
# installed only when run as root. Rust itself is not installed here.
#
#   setup/setup.sh                 everything
#   setup/setup.sh --build-only    what building the engine needs: no Python packages, no tests
set -euo pipefail

case "${1:-}" in
  "") build_only="" ;;
  --build-only) build_only=1 ;;
  *)
    printf 'setup: error: %s is no option: there is --build-only\n' "$1" >&2
    exit 2
    ;;
esac

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(dirname "$here")"
# shellcheck source=setup/env.sh
source "$here/env.sh"
cache="$ORCHESTRION_CACHE"
rocksdb_build="$cache/rocksdb-build"
rust_min="1.89"
python_min="3.8"
node_min="20.3"

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
# at_least 1.95.0 1.89
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
object_files() { find "$rocksdb_build" -name '*.o' -path '*librocksdb-sys-*' "$@" 2>/dev/null | wc -l; }

# The distribution's package manager, when we may use it.
apt_updated=""
apt_install() {
  [ "$(id -u)" = 0 ] && have apt-get || return 1
  if [ -z "$apt_updated" ]; then
    apt-get update -q >"$cache/apt.log" 2>&1 || true
    apt_updated=1
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >>"$cache/apt.log" 2>&1
}

# ---- one run at a time ------------------------------------------------------------------------

mkdir -p "$cache"
if have flock; then
  exec 9>"$cache/setup.lock"
  if ! flock -n 9; then
    say "another setup is running on this machine: waiting for it"
    until flock -w 30 9; do
      say "  still waiting ($(object_files) object files of RocksDB so far)"
    done
  fi
fi

# ---- whose crates the build folder holds -------------------------------------------------------

# Cargo knows the crates of a workspace by their place in it: without this, what it compiled in another clone
# would pass for what this one holds, wherever that is older.
owner="$CARGO_TARGET_DIR/clone"
if [ "$(cat "$owner" 2>/dev/null)" != "$root" ]; then
  rm -rf "$CARGO_TARGET_DIR"/*/.fingerprint/orchestrion* "$cache/temporal-rust"/*/.fingerprint/orchestrion*
  mkdir -p "$CARGO_TARGET_DIR"
  printf '%s\n' "$root" >"$owner"
fi

# ---- compilers --------------------------------------------------------------------------------

rust() {
  have cargo || die "no Rust toolchain: install Rust $rust_min or newer (rustup is the usual way; Debian's own may be too old), then run this again"
  local version
  version="$(cargo --version | cut -d' ' -f2)"
  at_least "$version" "$rust_min" ||
    die "Rust $version is too old: $rust_min or newer is needed. With rustup: rustup update stable"
  say "rust $version: ok"
}

compilers() {
  local missing=()
  have cc || missing+=(gcc)
  have c++ || missing+=(g++)
  if [ "${#missing[@]}" -gt 0 ]; then
    say "no C or C++ compiler: installing ${missing[*]} (about a minute)"
    apt_install "${missing[@]}" libc6-dev ||
      die "a C and a C++ compiler (cc, c++; C++20, so GCC 10 or clang 12 and newer) are needed for RocksDB. On Debian, as root: apt-get install gcc g++"
  fi
  printf 'int main() { return 0; }\n' | c++ -std=c++20 -x c++ -fsyntax-only - 2>/dev/null ||
    die "this C++ compiler knows no C++20, which RocksDB is written in: $(c++ --version | head -n 1). GCC 10 or clang 12 and newer do"
  say "C++ compiler: ok ($(c++ --version | head -n 1))"
  # No crate needs it where its sources compile without; some ask for it on less usual machines.
  have cmake || say "cmake: not there. Usually it is not needed; should a build ask for it, as root: apt-get install cmake"
}

# ---- libclang: RocksDB's bindings are generated with it ----------------------------------------

# The library, with the C headers that belong to it: some packages bring only the first.
clang_headers() {
  compgen -G '/usr/lib/llvm*/lib/clang/*/include/stddef.h' || compgen -G '/usr/lib*/clang/*/include/stddef.h' ||
    compgen -G '/usr/local/llvm*/lib/clang/*/include/stddef.h' || compgen -G '/opt/homebrew/opt/llvm/lib/clang/*/include/stddef.h' ||
    compgen -G "${LIBCLANG_PATH:-/nowhere}/clang/*/include/stddef.h"
}

system_libclang() {
  clang_headers >/dev/null || return 1
  local dirs=(/usr/lib /usr/lib64 /usr/local/lib /usr/lib/llvm*/lib /usr/lib/*-linux-gnu /usr/local/llvm*/lib /opt/homebrew/opt/llvm/lib)
  if [ -n "${LIBCLANG_PATH:-}" ] && [ "$LIBCLANG_PATH" != "$cache/libclang" ]; then dirs=("$LIBCLANG_PATH" "${dirs[@]}"); fi
  if have llvm-config; then dirs+=("$(llvm-config --libdir)"); fi
  local dir found
  for dir in "${dirs[@]}"; do
    found="$(compgen -G "$dir/libclang.so" || compgen -G "$dir/libclang.so.*" || compgen -G "$dir/libclang-[0-9]*.so*" || compgen -G "$dir/libclang.dylib" || true)"
    if [ -n "$found" ]; then
      head -n 1 <<<"$found"
      return 0
    fi
  done
  return 1
}

libclang() {
  local found
  if found="$(system_libclang)"; then
    rm -rf "$cache/libclang" # the system's is better: it has its headers
    say "libclang: ok ($found)"
    return
  fi
  if [ -e "$cache/libclang/libclang.so" ]; then
    say "libclang: ok ($cache/libclang)"
    return
  fi
  say "no libclang: installing the Debian package libclang-dev (about a minute)"
  if apt_install libclang-dev && found="$(system_libclang)"; then
    say "libclang: installed ($found)"
    return
  fi
  [ -z "$build_only" ] || venv # its pip is needed after all
  say "that cannot be done here: taking the library from the Python package index instead (25 MB)"
  local wheel="$cache/libclang.tmp"
  rm -rf "$wheel"
  "$ORCHESTRION_VENV/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$wheel" libclang==18.1.1 ||
    die "libclang is needed and could not be installed. On Debian, as root: apt-get install libclang-dev. Elsewhere: install LLVM's libclang and set LIBCLANG_PATH to its folder"
  python3 - "$wheel" <<'PY'
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
    name = next(n for n in wheel.namelist() if n.rsplit("/", 1)[-1] in ("libclang.so", "libclang.dylib"))
    (folder / "libclang.so").write_bytes(wheel.read(name))
PY
  rm -f "$wheel"/*.whl
  ln -s "$(cc -print-file-name=include)" "$wheel/include"
  rm -rf "$cache/libclang"
  mv "$wheel" "$cache/libclang"
  say "libclang: installed ($cache/libclang)"
}

# ---- RocksDB ----------------------------------------------------------------------------------

locked_rocksdb() { sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p;}' "$1"; }

# The name of what an archive was made from: another name means that it must be made again.
rocksdb_recipe() {
  printf 'librocksdb-sys %s\n' "$(locked_rocksdb "$here/rocksdb/Cargo.lock")"
  printf 'host %s\n' "$(rustc -vV | sed -n 's/^host: //p')"
  sed -n -e '/^librocksdb-sys = /p' -e '/^\[profile.release\]/,$p' "$here/rocksdb/Cargo.toml"
}

rocksdb() {
  local version wanted
  version="$(locked_rocksdb "$here/rocksdb/Cargo.lock")"
  if [ -e "$root/Cargo.lock" ]; then
    wanted="$(locked_rocksdb "$root/Cargo.lock")"
    [ -z "$wanted" ] || [ "$wanted" = "$version" ] ||
      die "Cargo.lock has librocksdb-sys $wanted, but setup/rocksdb compiles $version: put the same version into setup/rocksdb/Cargo.toml, run 'cargo update' there, and run this again"
  fi

  local home archive
  home="$(dirname "$ROCKSDB_LIB_DIR")"
  archive="$ROCKSDB_LIB_DIR/librocksdb.a"
  if [ -s "$archive" ] && [ "$(cat "$home/recipe" 2>/dev/null)" = "$(rocksdb_recipe)" ]; then
    say "rocksdb $version: ok ($archive)"
    return
  fi

  say "rocksdb $version: compiling it once for this machine, optimised: about 20 minutes on two cores"
  mkdir -p "$rocksdb_build"
  local log="$rocksdb_build/cargo.log" messages="$rocksdb_build/messages.json" started=$SECONDS total="" sources
  touch "$rocksdb_build/started"
  # ROCKSDB_* tell the crate to link an archive instead of making one. A process group of its own,
  # so that an interrupted setup leaves no compiler running.
  set -m
  env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC cargo build --release --locked --message-format=json \
    --manifest-path "$here/rocksdb/Cargo.toml" --target-dir "$rocksdb_build" >"$messages" 2>"$log" 9>&- &
  local build=$!
  set +m
  # shellcheck disable=SC2064 # the number is wanted as it is now
  trap "kill -- -$build 2>/dev/null || true" EXIT
  local next=30
  while kill -0 "$build" 2>/dev/null; do
    sleep 1
    if [ $((SECONDS - started)) -ge "$next" ]; then
      next=$((next + 30))
      if [ -z "$total" ]; then
        sources="$(compgen -G "${CARGO_HOME:-$HOME/.cargo}/registry/src/*/librocksdb-sys-$version/rocksdb_lib_sources.txt" | head -n 1 || true)"
        [ -z "$sources" ] || total=" of $(grep -c . "$sources")"
      fi
      # Files of an interrupted run do not count, unless another build is the one that makes them.
      local newer=(-newer "$rocksdb_build/started")
      if grep -q 'Blocking waiting for file lock' "$log"; then newer=(); fi
      say "  rocksdb: $(object_files "${newer[@]}")$total object files, $(((SECONDS - started) / 60)) min"
    fi
  done
  trap - EXIT
  wait "$build" || {
    tail -n 40 "$log" >&2
    die "RocksDB did not compile: the end of $log is above"
  }

  local out
  out="$(sed -n 's/.*"reason":"build-script-executed".*librocksdb-sys.*"out_dir":"\([^"]*\)".*/\1/p' "$messages" | tail -n 1)"
  [ -s "$out/librocksdb.a" ] || die "RocksDB compiled but left no librocksdb.a in '$out': remove $rocksdb_build and run this again"
  mkdir -p "$ROCKSDB_LIB_DIR"
  cp "$out/librocksdb.a" "$ROCKSDB_LIB_DIR/.librocksdb.a.$$"
  rocksdb_recipe >"$home/.recipe.$$"
  mv "$ROCKSDB_LIB_DIR/.librocksdb.a.$$" "$archive"
  mv "$home/.recipe.$$" "$home/recipe"
  say "rocksdb $version: compiled in $(((SECONDS - started) / 60)) min ($archive)"
}

# ---- Python: the demo's services and the clients of the end-to-end tests ------------------------

venv() {
  have python3 || apt_install python3 python3-venv || die "python3 ($python_min or newer) is needed for the demo and the end-to-end tests"
  local version stamp
  version="$(python3 -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')"
  at_least "$version" "$python_min" || die "Python $version is too old: $python_min or newer is needed"
  stamp="$version $(cksum <"$here/requirements.txt")"
  if [ "$(cat "$ORCHESTRION_VENV/made-from" 2>/dev/null)" = "$stamp" ] && "$ORCHESTRION_VENV/bin/python" -c 'import orra' 2>/dev/null; then
    say "python packages: ok ($ORCHESTRION_VENV)"
    return
  fi
  say "python packages: installing them into $ORCHESTRION_VENV (under a minute)"
  rm -f "$ORCHESTRION_VENV/made-from"
  if ! "$ORCHESTRION_VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$ORCHESTRION_VENV"
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
      apt_install python3-venv || die "this python3 cannot make virtual environments. On Debian, as root: apt-get install python3-venv"
    fi
    python3 -m venv "$ORCHESTRION_VENV" || die "python3 -m venv $ORCHESTRION_VENV failed"
  fi
  "$ORCHESTRION_VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" ||
    die "the Python packages of setup/requirements.txt could not be installed: see pip's words above"
  printf '%s\n' "$stamp" >"$ORCHESTRION_VENV/made-from"
  say "python packages: installed"
}

# ---- Node: Temporal's TypeScript SDK, for the end-to-end tests ------------------------------------

node_packages() {
  local packages="$root/tests/temporal/typescript" home="$cache/node" version stamp
  # The demo and most tests do without: those that cannot will say so.
  if ! have node || ! have npm; then
    if ! apt_install nodejs npm; then
      say "node packages: NOT INSTALLED, there is no node with npm: the tests with Temporal's TypeScript SDK will fail. On Debian, as root: apt-get install nodejs npm"
      return
    fi
  fi
  version="$(node --version)"
  if ! at_least "${version#v}" "$node_min"; then
    say "node packages: NOT INSTALLED, Node ${version#v} is too old: the tests with Temporal's TypeScript SDK need $node_min or newer and will fail"
    return
  fi
  stamp="$(uname -sm) $(cat "$packages/package.json" "$packages/package-lock.json" | cksum)"
  if [ "$(cat "$home/made-from" 2>/dev/null)" = "$stamp" ]; then
    say "node packages: ok ($home)"
    return
  fi
  say "node packages: installing them into $home (about half a minute, 300 MB)"
  mkdir -p "$home"
  rm -f "$home/made-from"
  cp "$packages/package.json" "$packages/package-lock.json" "$home/"
  # Nothing needs the packages' own scripts: what is native comes ready-made.
  (cd "$home" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >"$cache/npm.log" 2>&1) || {
    tail -n 20 "$cache/npm.log" >&2
    die "the packages of tests/temporal/typescript/package-lock.json could not be installed: npm's words are above"
  }
  printf '%s\n' "$stamp" >"$home/made-from"
  say "node packages: installed"
}

rust
compilers
[ -n "$build_only" ] || venv
[ -n "$build_only" ] || node_packages
libclang
# shellcheck source=setup/env.sh
source "$here/env.sh" # it knows a libclang of ours only now
rocksdb
say "ready"
