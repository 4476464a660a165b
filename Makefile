# What the README calls by name. Nothing here is needed: the commands work without make, too.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?=
BENCH ?=
COVER ?=
PYTEST := $(BIN)/python $(if $(COVER),-m coverage run) -m pytest
KERNEL_TESTS := tests/test_simd.py tests/test_engine.py tests/test_bits.py tests/test_conv.py tests/test_exactness.py
# PyTorch's own index has the build without CUDA, a tenth of the size
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo test test-nojit test-cpus test-all notebooks covered bench bench-peers lint types clean clean-runs

$(VENV)/.done: requirements.txt
	$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install -q -r requirements.txt && touch $@

demo: $(VENV)/.done  ## four networks on the built-in doodles, into runs/demo
	$(BIN)/python -m hbn_ref study --epochs 8 --out runs/demo $(DEMO)

test: $(VENV)/.done  ## the tests, without the long ones
	$(PYTEST) -m "not slow"

test-nojit: $(VENV)/.done  ## the same tests on small shapes, kernels as plain Python
	NUMBA_DISABLE_JIT=1 $(PYTEST) -m "not slow"

test-cpus: $(VENV)/.done  ## the kernels' tests, compiled as for other x86 processors: AVX2, and no vectors at all
	NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx2,+fma,+popcnt $(BIN)/python -m pytest $(KERNEL_TESTS)
	NUMBA_CPU_NAME=generic $(BIN)/python -m pytest $(KERNEL_TESTS)

test-all: $(VENV)/.done  ## the long ones too
	$(BIN)/python -m pytest

covered:  ## after make test COVER=1 and make test-nojit COVER=1: the lines that neither reached
	$(BIN)/python -m coverage combine && $(BIN)/python -m coverage report

notebooks: $(VENV)/.done  ## every notebook from an empty kernel, nothing kept; HBN_FAST=1 for fewer steps
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 tutorials/*.ipynb

bench: $(VENV)/.done  ## five tables of timings, into runs/bench
	$(BIN)/python -m benchmarks $(BENCH)

bench-peers: $(VENV)/.done  ## PyTorch and OpenVINO, to be measured against
	$(BIN)/python -m pip install "torch==2.13.0" openvino --extra-index-url $(TORCH_INDEX)

lint: $(VENV)/.done
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell

types: $(VENV)/.done  ## the type hints, as pyproject.toml says
	$(BIN)/mypy

clean:  ## the environment; what was trained stays
	rm -rf $(VENV)

clean-runs:  ## everything trained and measured
	rm -rf runs
