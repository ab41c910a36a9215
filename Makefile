# Installs PostgreSQL with the system's package manager where it is missing, then calls plain cargo.
.PHONY: run test postgresql

run: postgresql
	cargo run --release

test: postgresql
	cargo test

postgresql:
	@sh .ci/postgresql
