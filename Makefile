# Everything a contributor runs. Needs only make and Python 3.11+ with its venv module; the rest is
# installed into $(VENV), once, and again whenever pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
FUZZ_SECONDS ?= 60
WORKERS ?= 2
ARGS ?=
# What is above the seam of storages does not know which release it runs on; these show that the seam does not differ.
NEWEST := tests/storage tests/memory tests/repository/test_differential.py tests/repository/test_machine.py \
  tests/langgraph/test_conformance.py

BIN := $(VENV)/bin
VENV_STAMP := $(VENV)/.stamp-venv
STAMP := $(VENV)/.stamp-dev
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore $(BIN)/python -m pip

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-newest lint check format bench fuzz clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1#\2/p' $(MAKEFILE_LIST) | awk -F'#' '{ printf "%-18s %s\n", $$1, $$2 }'

demo: $(STAMP) ## a LangGraph agent on ckpt, then its history on the command line
	@$(BIN)/python examples/demo.py $(ARGS)

test: $(STAMP) ## run the tests (ARGS='-k name' to choose)
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

test-newest: $(STAMP) ## run the tests of storages on PostgreSQL 18 and Valkey
	@CKPT_TEST_SERVERS=newest $(BIN)/python -m pytest -n $(WORKERS) -k 'postgres or redis or differential' $(NEWEST) $(ARGS)

lint: $(STAMP) ## style, formatting, types and the layering contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

check: lint test ## all that has to hold before a change goes in

format: $(STAMP) ## rewrite the sources in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP) ## measure ckpt beside LangGraph's own savers
	@$(BIN)/python -m benchmarks $(ARGS)

fuzz: $(STAMP) ## run each fuzz target for FUZZ_SECONDS
	@$(BIN)/python -c 'import atheris' 2>/dev/null || { echo "make fuzz needs atheris, which has no wheel for this platform." >&2; exit 1; }
	@set -e; for target in fuzz/fuzz_*.py; do \
	  echo "== $$target"; $(BIN)/python "$$target" -max_total_time=$(FUZZ_SECONDS) $(ARGS); \
	done

clean: ## remove everything that make has made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two stamps, because an interrupted run leaves a directory that looks like an environment.
$(VENV_STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "ckpt needs Python 3.11 or newer, but '$(PYTHON)' says: $$($(PYTHON) --version 2>&1 || true)" >&2; \
	  echo "Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@echo "Setting up $(VENV) (once; a minute or two) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(STAMP): pyproject.toml $(VENV_STAMP)
	@$(PIP) install -qq -e '.[dev]'
	@touch $@
