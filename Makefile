# Installs PostgreSQL with the system's package manager if it is missing, then calls plain cargo.
.PHONY: run test coverage cargo postgresql

run: cargo postgresql
	cargo run --release

test: cargo postgresql
	cargo test

# Which code the tests execute, by module: target/coverage/summary.md and lcov.info.
coverage: cargo postgresql
	.ci/coverage

cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust (https://rustup.rs)"; exit 1; }

postgresql:
	@sh .ci/postgresql
