# Two commands do everything: `make demo` shows it, `make test` proves it. Both set up first what
# this machine lacks (setup/setup.sh says what, and how long it takes).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench sim soak release

ENV := source setup/env.sh;

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: libclang, RocksDB (compiled once), Python and Node packages
	@setup/setup.sh

demo: setup ## build the engine and watch it work: an order, an abort undone, a kill -9 survived
	@$(ENV) cargo build --package orchestrion --bin orchestrion
	@$(ENV) "$$ORCHESTRION_VENV/bin/python" worker-sdk/python/demo/demo.py "$$CARGO_TARGET_DIR/debug/orchestrion"

test: setup ## all tests, those with real processes and real clients included
	@setup/test.sh

release: ## build the engine as it is deployed, optimised; says where it is
	@setup/setup.sh --build-only
	@$(ENV) cargo build --release --locked --package orchestrion --bin orchestrion
	@$(ENV) echo "$$CARGO_TARGET_DIR/release/orchestrion"

check: setup ## formatting, clippy, documentation, licences and advisories of dependencies, the Dockerfile
	$(ENV) cargo fmt --all --check
	$(ENV) cargo fmt --manifest-path tests/temporal/rust/Cargo.toml --check
	$(ENV) cargo clippy --workspace --all-targets -- -D warnings
	$(ENV) cargo clippy --locked --manifest-path tests/temporal/rust/Cargo.toml --target-dir "$$ORCHESTRION_CACHE/temporal-rust" -- -D warnings
	$(ENV) RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	@setup/deny.sh
	@$(ENV) if [ -x "$$ORCHESTRION_VENV/bin/hadolint" ]; then \
		"$$ORCHESTRION_VENV/bin/hadolint" --config docker/hadolint.yaml docker/Dockerfile; \
	else \
		echo "check: SKIPPED the Dockerfile: hadolint is not published for this kind of machine"; \
	fi

bench: setup ## how fast it is: the workloads over the public wires (ROWS="W1 W6" chooses), then the core alone
	$(ENV) cargo build --release --package orchestrion --package orchestrion-load --bins
	@setup/temporal-rust.sh --release
	@$(ENV) "$$CARGO_TARGET_DIR/release/load" --json "$$CARGO_TARGET_DIR/bench.json" \
		--sdk-worker "$$(dirname "$$ORCHESTRION_TEMPORAL_RUST")/release/worker" $(ROWS)
	$(ENV) cargo bench --package orchestrion-benches --benches

sim: setup ## random worlds in which everything goes wrong: SEED=7 runs one, SEEDS=500 so many, MINUTES=10 so long
	@$(ENV) SEED="$(SEED)" SEEDS="$(SEEDS)" MINUTES="$(MINUTES)" cargo run --quiet --profile "$(or $(PROFILE),dev)" --package orchestrion-tests --bin sim

soak: setup ## the tests that take minutes because they wait in real time
	@SOAK=1 setup/test.sh
