# Everything a fresh machine with Python 3.11+ and make needs; `make help` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Every verb is a process of its own: without stored bytecode a third of its start is compiling.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long check unit lock prove-resume prove-crash prove-apply prove-native prove-load \
	prove-schemas prove-mapping prove-reconcile prove-reconcile-kills prove-fence prove-cutover prove-way-back prove-memory bench-load bench-reconcile \
	bench-cutover bench-apply bench-mapped clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## create .venv from the hash-locked requirements

$(READY): requirements.lock pyproject.toml hatch_build.py $(wildcard cdc_migrator/native/*.[ch])
	@echo "setting up $(VENV) (uv, locked dependencies, cdc-migrator itself)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --requirement requirements.lock
	@# The C library is built with the machine's compiler, or with one from a wheel.
	@command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements-images.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: setup ## move a live shop database end to end on a local stack
	@$(BIN)/cdc-migrator demo

check: setup ## lint, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

test: check ## everything CI runs: check, then the tests on the real local stack
	@$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not strikes and not long"
	@$(BIN)/pytest -m "strikes and not long"

test-long: setup ## tests of what the proofs strike at more often
	@$(BIN)/pytest -m long

unit: setup ## the tests that need no stack
	@$(BIN)/pytest -m "not stack"

prove-resume: setup ## kill and resume for 18 minutes; adds to proofs/resume.jsonl
	@$(BIN)/python -m tests.faults.prove

prove-crash: setup ## strike the applier for 17 minutes; adds to proofs/crash.jsonl
	@$(BIN)/python -m tests.faults.prove_crash

prove-apply: setup ## random workloads against two oracles for 17 minutes; adds to proofs/apply.jsonl
	@$(BIN)/python -m tests.oracle.prove

prove-native: setup ## the library in C beside Python, under gcc's sanitizers, for 10 minutes; adds to proofs/native.jsonl
	@$(BIN)/python -m tests.oracle.prove_native

prove-load: setup ## kill loads for 17 minutes; adds to proofs/load.jsonl
	@$(BIN)/python -m tests.faults.prove_load

prove-fence: setup ## fence the source under writers for 10 minutes; adds to proofs/fence.jsonl
	@$(BIN)/python -m tests.faults.prove_fence

prove-cutover: setup ## strike at cutovers under writers for 17 minutes; adds to proofs/cutover.jsonl
	@$(BIN)/python -m tests.faults.prove_cutover

prove-way-back: setup ## there and back under writers, struck at each step, for 17 minutes; adds to proofs/way_back.jsonl
	@$(BIN)/python -m tests.faults.prove_cutover --back

prove-mapping: setup ## kill mapped loads and streams, and cutovers inside one database, for 17 minutes; adds to proofs/mapping.jsonl
	@$(BIN)/python -m tests.faults.prove_mapping $(if $(MINUTES),--minutes $(MINUTES))

prove-schemas: setup ## schemas of others (SCHEMAS=directory: yours, too); adds to proofs/schemas.jsonl
	@$(BIN)/python -m tests.schemas.prove $(if $(SCHEMAS),--directory $(SCHEMAS))

prove-reconcile: setup ## compare, corrupt and repair under writers for 15 minutes; adds to proofs/reconcile.jsonl
	@$(BIN)/python -m tests.faults.prove_reconcile

prove-reconcile-kills: setup ## kill what compares, repairs and rebuilds for 15 minutes; adds to proofs/reconcile.jsonl
	@$(BIN)/python -m tests.faults.prove_reconcile --kills

prove-memory: setup ## the most memory that run takes (CASE=rows: that one); adds to proofs/memory.jsonl
	@$(BIN)/python -m tests.memory.prove $(if $(CASE),--cases $(CASE))

bench-load: setup ## schema, rows and indexes against pg_dump, pg_restore and pgcopydb
	@$(BIN)/python -m benchmarks.load

bench-reconcile: setup ## comparing five million rows against the queries of others
	@$(BIN)/python -m benchmarks.reconcile --keep

bench-cutover: setup ## each writer's stall at 500 commits/s against a scripted logical replication
	@$(BIN)/python -m benchmarks.cutover --keep

bench-apply: setup ## draining a full topic against logical replication, Debezium's JDBC sink and COPY
	@$(BIN)/python -m benchmarks.apply

bench-mapped: setup ## the same by us alone, with a transform of five expressions, of a Python function, and without
	@$(BIN)/python -m benchmarks.mapped

# The container image installs the runtime's: the same versions, without the local stack's server
# and Java and without tools. The images' is what only building them needs.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links

lock: setup ## resolve requirements.lock, and those of the container images, anew
	@$(BIN)/$(COMPILE) --extra local --group dev -o requirements.lock pyproject.toml
	@$(BIN)/$(COMPILE) --constraints requirements.lock -o requirements-runtime.lock pyproject.toml
	@$(BIN)/$(COMPILE) --constraints requirements.lock --group images -o requirements-images.lock

clean: ## remove the environment and the local state
	-@$(BIN)/cdc-migrator stack down --purge --state-dir .cdc-migrator/demo/stack
	rm -rf $(VENV) .cdc-migrator
