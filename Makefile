# Each target is one line that also works without make; the README prints them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?=

.PHONY: demo test test-nojit test-all lint clean

$(VENV)/.done: requirements.txt
	$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install -q -r requirements.txt && touch $@

demo: $(VENV)/.done  ## four networks on the built-in doodles, into runs/demo
	$(BIN)/python -m hbn_ref study --epochs 8 --out runs/demo $(DEMO)

test: $(VENV)/.done  ## the tests, without the long ones
	$(BIN)/python -m pytest -m "not slow"

test-nojit: $(VENV)/.done  ## the same tests on small shapes, kernels as plain Python
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/.done  ## the long ones too
	$(BIN)/python -m pytest

lint: $(VENV)/.done
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) runs
