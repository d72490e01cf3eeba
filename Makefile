# Two commands for a new checkout: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test lint types tests soak clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  f"phantumor needs Python 3.11 to 3.13, {sys.executable} is {v[0]}.{v[1]}: run `make PYTHON=python3.12 ...`")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python cannot make virtual environments here: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/phantumor demo --out demo

test: lint types tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

tests: setup
	$(BIN)/python -m pytest -q -n 2

# What takes too long for every change: fault injection with repetitions, then SAMPLES samples killed on the way (hours).
SAMPLES ?= 1000000
soak: setup
	$(BIN)/python -m pytest -q -m soak
	$(BIN)/python -m benchmarks.soak --out soak --samples $(SAMPLES)

clean:
	rm -rf demo .pytest_cache .mypy_cache .ruff_cache
