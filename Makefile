# Installs PostgreSQL with the system's package manager if it is missing, then calls plain cargo.
.PHONY: run test cargo postgresql

run: cargo postgresql
	cargo run --release

test: cargo postgresql
	cargo test

cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust (https://rustup.rs)"; exit 1; }

postgresql:
	@sh .ci/postgresql
