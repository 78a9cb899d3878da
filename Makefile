# Every target a person or CI calls. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Outside the clone, so that a fresh clone builds warm. Exported: scripts and cargo agree on it.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/streamapp/target
export STREAMAPP_CACHE ?= $(HOME)/.cache/streamapp

CARGO_DENY_VERSION := 0.20.2
BENCH_ARGS ?=

.PHONY: help setup build demo test fmt lint deny test-unit test-sim test-integration bench figures verify clean broker-up broker-down

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the system packages that are missing (Debian, root or sudo)
	@e2e/setup

build: setup ## build everything into bin/
	cargo build --release -p streamapp-worker -p streamapp -p streamapp-e2e
	@mkdir -p bin
	@for name in streamapp streamapp-worker streamapp-e2e; do \
	  install -m 755 "$(CARGO_TARGET_DIR)/release/$$name" "bin/.$$name" && mv -f "bin/.$$name" "bin/$$name"; \
	done
	@echo "built: bin/streamapp bin/streamapp-worker bin/streamapp-e2e"

demo: build ## the main job with faults, on a broker on 127.0.0.1:19092, judged by the checker
	@e2e/broker up
	@bin/streamapp-e2e demo

test: ## everything that CI runs; ends with one line of totals
	@e2e/test

fmt: ## format the sources
	cargo fmt --all

lint: setup ## formatting, clippy, borders between crates, licences and sources
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	scripts/borders
	@$(MAKE) deny

deny: ## licences, bans and sources of the dependencies
	@scripts/deny $(CARGO_DENY_VERSION)

test-unit: setup ## unit and property tests
	cargo test --release --workspace --exclude streamapp-sim

test-sim: setup ## seeded simulation
	cargo test --release -p streamapp-sim

test-integration: build ## real Kafka, real RocksDB, kill -9
	@e2e/test integration

bench: build ## ours, Kafka Streams and a bare loop in turns; BENCH_ARGS="--reps 1" for options
	@e2e/broker up
	@eval "$$(e2e/broker env)" && bin/streamapp-e2e bench $(BENCH_ARGS)

figures: ## the figures of the last runs as one table
	@scripts/figures

verify: ## generated files and committed evidence are up to date
	@if [[ -x scripts/verify ]]; then scripts/verify; else echo "verify: nothing is generated yet"; fi

clean: ## stop the broker, remove bin/, reports/ and .state/ (caches stay)
	@e2e/broker down --purge
	rm -rf bin reports .state

broker-up: ## start a Kafka broker on 127.0.0.1:19092
	@e2e/broker up

broker-down: ## stop it; its data stays (e2e/broker down --purge removes it)
	@e2e/broker down
