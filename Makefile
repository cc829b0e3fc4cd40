# The two commands of the README, and what they are made of.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# A file's tests stay together: they share what is costly to start.
# In the order of their names: the other one keeps a long test for the end, when nobody else has work.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Hundreds of processes import the same modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast test-cluster benchmark-smoke reliability check bench install
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/lmrl demo

test: check
	$(PYTEST)

test-fast: $(VENV)/installed-dev
	$(PYTEST) -m "not slow"

# As root: hosts are made of namespaces. Where those are forbidden it says so and does less.
test-cluster: $(VENV)/installed-dev
	sh tools/install_host_tools.sh
	$(BIN)/python -m pytest tests/cluster -s -rA

# A matrix of minutes as a user would run it, into a folder that is removed.
benchmark-smoke: $(VENV)/installed
	out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && \
	$(BIN)/lmrl benchmark tune_configs/benchmark_smoke.yaml --out "$$out"

# What docs/reliability.md tells; the figures are at the end. One after the other, so that they are comparable.
reliability: $(VENV)/installed-dev
	LMRL_FULL_TESTS=1 $(BIN)/python -m pytest tests tests/cluster -m reliability -rap

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/environments.py
	$(BIN)/python benchmarks/rollout_sampler.py --check
	$(BIN)/python benchmarks/ilql_index_form.py --check
	$(BIN)/python benchmarks/rollout_actors.py --check
	$(BIN)/python benchmarks/weight_transfer.py --check

install: $(VENV)/installed

# torch is asked for by its exact version first: a looser request may bring the CUDA build.
$(VENV)/installed: pyproject.toml constraints.txt tools/install_stockfish.sh
	command -v $(PYTHON) >/dev/null || { echo "error: needs $(PYTHON); or: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0 --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --editable . --constraint constraints.txt
	sh tools/install_stockfish.sh
	touch $@

# The tests also compare our text-nav with TextWorld, one of whose parts is compiled at installation.
$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --group dev --constraint constraints.txt
	touch $@
