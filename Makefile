# Every target a person or CI calls. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Outside the clone, so that a fresh clone builds warm. Exported: scripts and cargo agree on it.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/streamapp/target
export STREAMAPP_CACHE ?= $(HOME)/.cache/streamapp

# Whatever compiles goes through it: it knows where RocksDB is kept once it is compiled.
CARGO := scripts/own-target cargo
CARGO_DENY_VERSION := 0.20.2
BENCH_ARGS ?=
PROGRAMS := streamapp streamapp-worker streamapp-operator streamapp-e2e streamapp-sim
REFERENCE := docs/reference/streamapp.md
GUARANTEES := docs/guarantees.md
CRD := charts/streamapp-crds/templates/streamapps.yaml

.PHONY: help setup build demo demo-local image crds test fmt lint deny test-unit test-broker test-sim test-integration test-e2e soak footprint bench figures evidence verify clean broker-up broker-down cluster-up cluster-down

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the system packages that are missing (Debian, root or sudo)
	@e2e/setup

# Always the whole workspace: another choice of packages has other features, and RocksDB would be compiled again.
build: setup ## build everything into bin/
	$(CARGO) build --release --workspace --bins
	@scripts/rocksdb keep
	@mkdir -p bin
	@for name in $(PROGRAMS); do \
	  install -m 755 "$(CARGO_TARGET_DIR)/release/$$name" "bin/.$$name" && mv -f "bin/.$$name" "bin/$$name"; \
	done
	@echo "built: $(PROGRAMS:%=bin/%)"

demo: build image ## the main job with faults on a real cluster with one node, judged by the checker
	@e2e/cluster-demo

demo-local: build ## the same on this machine only, without Kubernetes, on a broker on 127.0.0.1:19092
	@e2e/broker up
	@bin/streamapp-e2e demo

image: build ## OCI archives of worker and operator in .state/images
	@images/archive

cluster-up: ## start a Kubernetes with one node (10.250.0.2)
	@e2e/cluster up

cluster-down: ## stop it; its data stays (e2e/cluster down --purge removes it)
	@e2e/cluster down

test: ## everything that CI runs; ends with one line of totals
	@e2e/test

fmt: ## format the sources
	cargo fmt --all

lint: setup ## formatting, clippy, borders between crates, licences and sources
	cargo fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	scripts/borders
	scripts/rules
	scripts/own-target check
	@$(MAKE) deny

deny: ## licences, bans and sources of the dependencies
	@scripts/deny $(CARGO_DENY_VERSION)

test-unit: setup ## unit and property tests
	@scripts/cel-cases >/dev/null
	$(CARGO) test --release --workspace --no-fail-fast -- --skip broker_tests::

test-broker: setup ## the test environment itself, on the broker that STREAMAPP_TEST_KAFKA names
	$(CARGO) test --release --workspace --bins broker_tests:: -- --include-ignored --test-threads 1

test-sim: build ## every interleaving of small scenarios, and seeded schedules with faults
	bin/streamapp-sim model
	bin/streamapp-sim schedules

test-integration: build ## real Kafka, real RocksDB, kill -9
	@e2e/test integration

test-e2e: build image ## the operator on a real cluster, real pods, Helm
	@e2e/test cluster e2e

soak: build ## what is too long for CI: the whole crash matrix, faults of every kind at random for SOAK_MINUTES (60), recovery with a million keys, 100,000 schedules
	@e2e/test soak

footprint: build image ## CPU and memory of operator and workers, sizes of images and definition
	@e2e/cluster-demo footprint

bench: build ## expressions; then ours, Kafka Streams and a bare loop in turns; BENCH_ARGS="--only LINE" for one line, "--list" names them
	$(CARGO) bench --workspace --bench expressions
	@e2e/broker up
	@eval "$$(e2e/broker env)" && bin/streamapp-e2e bench $(BENCH_ARGS)

figures: ## the figures of the last runs as one table
	@scripts/figures

crds: build ## write the CustomResourceDefinition into its chart, and the reference of its fields
	@mkdir -p $(dir $(CRD))
	@"$(CARGO_TARGET_DIR)/release/crdgen" >$(CRD).new && mv -f $(CRD).new $(CRD)
	@"$(CARGO_TARGET_DIR)/release/crdgen" reference >$(REFERENCE).new && mv -f $(REFERENCE).new $(REFERENCE)
	@echo "$(CRD): $$(wc -c <$(CRD)) bytes"

evidence: ## docs/evidence of this version from the reports of the last make test and make soak
	@scripts/evidence collect

verify: crds ## generated files are up to date
	@scripts/evidence page
	@git diff --exit-code -- $(CRD) $(REFERENCE) $(GUARANTEES) || { echo "verify: commit what 'make crds' and scripts/evidence wrote" >&2; exit 1; }

clean: ## stop broker and cluster, remove bin/, reports/ and .state/ (caches stay)
	@e2e/broker down --purge
	@[[ ! -d .state/cluster-broker ]] || e2e/broker down --dir .state/cluster-broker --purge
	@[[ ! -d .state/cluster ]] || e2e/cluster down --purge
	rm -rf bin reports .state

broker-up: ## start a Kafka broker on 127.0.0.1:19092
	@e2e/broker up

broker-down: ## stop it; its data stays (e2e/broker down --purge removes it)
	@e2e/broker down
