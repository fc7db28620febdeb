# Every task of this repository. `make help` lists them.

.DEFAULT_GOAL := help
SHELL := /bin/sh

# Found (or installed) once for each recipe that needs it; the demo and the tests read the variable.
with_postgres = TIDEWATER_PG_BIN="$$(./scripts/ensure-postgres)" || exit 1; export TIDEWATER_PG_BIN;

# Only the tests behind a pooler read it; empty where they are to be skipped.
with_pgbouncer = TIDEWATER_PGBOUNCER="$$(./scripts/ensure-pgbouncer)" || exit 1; export TIDEWATER_PGBOUNCER;

# Where it cannot be had, the tests that need it say so and are left out, but not in CI.
with_prometheus = TIDEWATER_PROMETHEUS_BIN="$$(./scripts/ensure-prometheus)" && export TIDEWATER_PROMETHEUS_BIN || [ "$${CI:-}" != true ] || exit 1;

with_faketime = TIDEWATER_FAKETIME="$$(./scripts/ensure-faketime)" && export TIDEWATER_FAKETIME || [ "$${CI:-}" != true ] || exit 1;

with_old_sqlite = TIDEWATER_OLD_SQLITE="$$(./scripts/ensure-old-sqlite)" && export TIDEWATER_OLD_SQLITE || [ "$${CI:-}" != true ] || exit 1;

# How long `make soak` goes on.
MINUTES ?= 10

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: toolchain ## two devices, a PostgreSQL, a conflict, convergence: all in a temporary folder
	@$(with_postgres) cargo run --quiet -- demo

.PHONY: test
test: toolchain ## every test that CI runs, against a real PostgreSQL
	@$(with_postgres) $(with_pgbouncer) $(with_prometheus) $(with_faketime) $(with_old_sqlite) cargo test --features failpoints

.PHONY: soak
soak: toolchain ## random faults, for MINUTES=10: first simulated, then real processes, half of it each
	TIDEWATER_SIM_SECONDS=$$(($(MINUTES) * 30)) cargo test --features failpoints --test sim \
		no_schedule -- --nocapture
	@$(with_postgres) TIDEWATER_CHAOS_MINUTES=$$((($(MINUTES) + 1) / 2)) cargo test --features failpoints --test it -- \
		--ignored --nocapture --exact chaos::soak

.PHONY: lint
lint: toolchain ## formatting, clippy, documentation, dependencies
	cargo fmt --all -- --check
	cargo clippy --all-targets --features failpoints -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	./scripts/check-compose
	@if command -v cargo-deny >/dev/null 2>&1; then \
		echo cargo deny check; cargo deny check; \
	else \
		echo "cargo deny: skipped, cargo-deny is not installed (cargo install cargo-deny)"; \
	fi

.PHONY: bench
bench: toolchain ## a drained queue against a bare COPY, in one run
	@$(with_postgres) cargo bench --bench upload

.PHONY: build
build: toolchain ## the release program, target/release/tidewater
	cargo build --release

.PHONY: toolchain
toolchain:
	@command -v cargo >/dev/null 2>&1 || { \
		echo "Rust is missing: install it from https://rustup.rs, then run make again." >&2; exit 1; }
	@command -v "$${CC:-cc}" >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1 || { \
		echo "A C compiler is missing (SQLite is built from source): apt-get install gcc libc6-dev, or xcode-select --install." >&2; exit 1; }
