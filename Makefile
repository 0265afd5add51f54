# ruleforge: what people type. `make help` lists the targets.
# A bare machine needs Python 3.11 or newer, gcc, make and git; the rest is installed into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_FLAGS ?=
BIN := .venv/bin
STAMP := .venv/.installed

# One thread per process, so that two test processes share two cores and results repeat.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1

# `make check` must answer in under a minute: the parts that train nothing.
QUICK_TESTS = $(wildcard tests/test_architecture.py tests/test_project.py tests/core tests/render tests/store)

.DEFAULT_GOAL := help
.PHONY: help .venv demo examples test test-slow check chaos fuzz fuzz-long bench gpu-check docs baselines known clean

help:  ## this list
	@grep -hE '^[a-z.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */|/' | \
		awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

.venv: $(STAMP)  ## the virtual environment, with the versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ruleforge needs Python 3.11 or newer; try: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## a short search on real data: champion, comparison, export, training with the export
	$(BIN)/python examples/demo.py

examples: $(STAMP)  ## rules as optimizers in other people's training loops
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[trainers]'
	$(ONE_THREAD) $(BIN)/python -m pytest -m slow tests/examples/test_trainers.py

test: $(STAMP)  ## all tests but the slow ones, on two cores
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: $(STAMP)  ## the slow tests alone
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m "slow and not gpu"

check: $(STAMP)  ## lint, format, types and the quick tests, in under a minute
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m "not slow and not gpu" $(QUICK_TESTS)

chaos: $(STAMP)  ## searches killed, starved and cut off at hundreds of points, and resumed
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[dask]'
	$(BIN)/python -m chaos

fuzz: $(STAMP)  ## a million hostile inputs, with coverage guidance where atheris installs
	-$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m fuzz

fuzz-long: $(STAMP)  ## ten times as many
	-$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m fuzz --scale 10 --seed 100

bench: $(STAMP)  ## the speed benchmarks at their quick size, written into docs/benchmarks.md
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/page.py

gpu-check: $(STAMP)  ## on a machine with a GPU, in ten minutes: is it right, how fast is it, a search
	@$(BIN)/python -m ruleforge.app.gpu_check

docs: $(STAMP)  ## regenerate the generated parts of docs/
	$(BIN)/python -m ruleforge.app.docs

baselines: $(STAMP)  ## tune the baselines that the package ships
	$(ONE_THREAD) $(BIN)/python -m ruleforge.app.shipping

known: $(STAMP)  ## measure the known rules against their upstreams and write the record
	$(BIN)/python -m tests.known.regenerate

clean:  ## remove the environment and caches; results stay
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
