# `make` alone lists the targets.
.PHONY: help demo test lint fmt bench-ingest bench-import bench-queue bench-bulk bench-realtime bench-sessions bench-soak clean-demo setup

# rustup puts itself here; a shell that was open before does not look there.
export PATH := $(HOME)/.cargo/bin:$(PATH)

help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

setup: ## installs what is missing to build and run
	@scripts/setup.sh run

demo: setup ## builds and runs everything on this machine, with simulated providers
	cargo build -p wasel-server --features simulated-phones
	cargo run -q -p wasel-server --features simulated-phones -- demo

test: ## installs what is missing and runs every check and test
	@scripts/setup.sh test
	@scripts/test.sh

lint: ## formatting and lints
	@scripts/setup.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## formats the Rust code
	cargo fmt --all

bench-ingest: setup ## measures how many webhooks a second are stored
	cargo run --release -p wasel-bench -- ingest

bench-import: setup ## measures how many old rows a second are moved in
	cargo run --release -p wasel-bench -- import

bench-queue: setup ## measures how fast and how evenly messages leave
	cargo run --release -p wasel-bench -- queue

bench-bulk: setup ## measures a bulk job, with the server killed on the way
	cargo run --release -p wasel-bench -- bulk

bench-realtime: setup ## measures how fast changes reach many sockets
	cargo run --release -p wasel-bench -- realtime

bench-sessions: setup ## measures linked phones, beside Baileys
	cargo run --release -p wasel-bench -- sessions

bench-soak: setup ## lets linked phones live through a day in minutes
	cargo run --release -p wasel-bench -- soak

clean-demo: ## removes the data of the demo
	rm -rf wasel-demo-data
