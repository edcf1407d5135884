# Every habit is one command; `make` lists them. CI calls the same targets.
PYTHON ?= python3
VENV ?= .venv
NEWEST_PYTHON ?= $(shell for p in python3.13 $(HOME)/.pyenv/versions/3.13*/bin/python3.13; do \
	$$p -c '' 2>/dev/null && echo $$p && break; done)
WORKERS ?= 2
BENCH ?= $(VENV)-bench
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Called from the file next to them only, so that one line says it all; every other docstring names each parameter.
BACK_ROOMS := $(wildcard cubekit/cli/*.py) cubekit/pipeline/scenes.py \
	$(foreach name,classify forecast fractions,cubekit/pipeline/$(name)/steps.py) cubekit/sources/headers.py cubekit/testing/files.py \
	cubekit/testing/scene.py cubekit/testing/year.py \
	$(foreach name,blocks compiled conform failures handles http kernels lay lay_kernels metadata remote scenes tiff warp_kernels,cubekit/cube/$(name).py) \
	$(foreach name,ledger mark metadata objects place plan regions remote,cubekit/store/$(name).py)

.PHONY: help setup demo test lint format types wheel test-newest test-services test-xbatcher \
	bench bench-full bench-check bench-page clean
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP)  ## virtual environment with pinned packages, package installed for editing

$(STAMP): pyproject.toml constraints.txt
	@echo "==> virtual environment in $(VENV) (a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cubekit needs Python 3.11 or newer; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first and alone: it is the one package whose builds differ by machine
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
	@echo "==> installed"

demo: setup  ## run the main job on the built-in sample archive; results in demo/
	@echo "==> cubekit demo"
	@$(BIN)/cubekit demo --out demo

test: setup  ## all tests; real-data parts skip where CUBEKIT_SHARED is absent
	@echo "==> tests"
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not services'

lint: setup  ## ruff (check and format), import contracts, docstrings
	@echo "==> lint"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/numpydoc lint $(filter-out $(BACK_ROOMS),$(shell find cubekit -name '*.py'))
	@$(BIN)/lint-imports

format: setup  ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: setup  ## strict mypy on package and tests
	@echo "==> types"
	@$(BIN)/mypy

wheel: setup  ## build, check the file list, install elsewhere, run a smoke test from an empty folder
	@echo "==> wheel"
	@CUBEKIT_TEST_WHEEL=1 $(BIN)/python -m pytest -q tests/test_wheel.py

test-newest: $(VENV)-newest/.installed  ## torch-free tests with the newest Python and dependencies
	@echo "==> tests on $(NEWEST_PYTHON)"
	@$(VENV)-newest/bin/python -m pytest -n $(WORKERS) -m 'not torch and not services'

$(VENV)-newest/.installed: pyproject.toml
	@test -n "$(NEWEST_PYTHON)" || (echo "no python3.13 found; set NEWEST_PYTHON=" && false)
	@echo "==> virtual environment in $(VENV)-newest"
	@test -x $(VENV)-newest/bin/python || $(NEWEST_PYTHON) -m venv $(VENV)-newest
	@$(VENV)-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade \
		-e '.[demo,hdf4,parquet]' hypothesis pytest pytest-socket pytest-timeout pytest-xdist zarr-cm
	@touch $@

test-xbatcher: setup  ## xbatcher's own tests, with our plans in the place of its generator
	@echo "==> xbatcher's tests"
	@PYTHONPATH=tests/batching $(BIN)/python -m pytest -q -c /dev/null --rootdir . -p no:cacheprovider -p xbatcher_plans \
		-W ignore -k 'not (cached_getitem or to_tensor or to_named_tensor)' \
		--pyargs xbatcher.tests.test_generators xbatcher.tests.test_accessors xbatcher.tests.test_torch_loaders

test-services: setup $(VENV)-services/.installed  ## tests against nginx, pgSTAC, Azurite, S3 and hosts in network namespaces
	@echo "==> tests with services"
	@CUBEKIT_SERVICES=$(VENV)-services $(BIN)/python -m pytest -m services

$(VENV)-services/.installed: tests/services/install.sh tests/services/requirements.txt
	@echo "==> servers in $(VENV)-services"
	@PYTHON=$(PYTHON) tests/services/install.sh $(VENV)-services
	@touch $@

bench: $(BENCH)/.installed  ## speed, memory and requests beside peers (10 minutes); results in benchmarks/results/
	@echo "==> benchmarks"
	@$(BENCH)/bin/python -m benchmarks $(BENCHFLAGS)

bench-full: $(BENCH)/.installed  ## the same with five rounds (half an hour), for figures worth quoting
	@$(BENCH)/bin/python -m benchmarks --full $(BENCHFLAGS)

bench-check: $(BENCH)/.installed  ## the quick run; fails where a row fell far behind benchmarks/expected.json
	@$(BENCH)/bin/python -m benchmarks --check $(BENCHFLAGS)

bench-page:  ## docs/benchmarks.md from the last results
	@$(BENCH)/bin/python -m benchmarks.page

$(BENCH)/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt benchmarks/requirements-torchgeo.txt
	@echo "==> virtual environment in $(BENCH) (a few minutes the first time)"
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch,fast]'
	@# one after the other: a peer that cannot be installed is named in the results; the others still run
	@grep -v '^#' benchmarks/requirements.txt | while read peer; do \
		$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "$$peer" \
			|| echo "==> without $$peer"; done
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(BENCH)/torchgeo --upgrade \
		-r benchmarks/requirements-torchgeo.txt || echo "==> without torchgeo"
	@touch $@

clean:  ## remove what the other commands made
	rm -rf $(VENV) $(VENV)-newest $(BENCH) $(VENV)-services demo runs dist build .mypy_cache .ruff_cache .pytest_cache
