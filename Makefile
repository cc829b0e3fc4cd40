# The two commands of the README, and what they are made of.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-fast check bench install
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/lmrl demo

test: check
	$(BIN)/python -m pytest

test-fast: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not slow"

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
