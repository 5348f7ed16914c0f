# Two commands matter: `make demo` and `make test`. Both set up what they need; neither needs more
# than Python 3.11+ and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA ?=

.PHONY: setup demo test check lint types contracts attacks fuzz clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,demo,dev]'
	@touch $(STAMP)

demo: setup
	$(BIN)/consilium demo $(if $(DATA),--data $(DATA))

test: check
	$(BIN)/python -m pytest

check: lint types contracts

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports

attacks: setup
	$(BIN)/python -m pytest tests/adversary -q --attack-table

fuzz: setup
	$(BIN)/python -m tests.fuzz.run --seconds $(or $(SECONDS_EACH),10)

clean:
	rm -rf $(VENV) demo-out* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
