# What the README calls by name. Nothing here is needed: the commands work without make, too.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?=
BENCH ?=
ALL ?=
COVER ?=
# COVER=1: which lines were reached; for "make covered", one file per command
COVERED = $(if $(COVER),--cov --cov-report= --cov-append)
PYTEST := $(BIN)/python -m pytest
# one worker per core; tests that look at a clock run after the others, by themselves
EACH_CORE := -n auto --dist worksteal
KERNEL_TESTS := tests/test_simd.py tests/test_engine.py tests/test_bits.py tests/test_conv.py tests/test_exactness.py
# the tests that reach each line of a kernel when it is plain Python
KERNEL_CODE_TESTS := $(KERNEL_TESTS) $(patsubst %,tests/test_%.py,binarize layers models train cost hybrid deploy reference)
KIT_TESTS := tests/test_bits.py tests/test_conv.py tests/test_reference.py tests/test_testing*.py
# The oldest libraries that pass; the newest are whatever pip finds
PYTHON_OLDEST ?= python3.10
PYTHON_NEWEST ?= python3.13
OLDEST := numpy==2.0.0 numba==0.60.0 pillow==10.1 matplotlib==3.8.4 hypothesis==6.130.0
# PyTorch's own index has the build without CUDA, a tenth of the size
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo test test-nojit test-cpus test-arm64 test-oldest test-newest test-all notebooks covered bench bench-peers lint types \
	clean clean-runs

$(VENV)/.done: requirements.txt
	$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install -q -r requirements.txt && touch $@

demo: $(VENV)/.done  ## five networks on the built-in doodles, into runs/demo
	$(BIN)/python -m hbn_ref study --epochs 8 --last-layer both --out runs/demo $(DEMO)

test: $(VENV)/.done  ## the tests, without the long ones, on all cores
	COVERAGE_FILE=.coverage.jit $(PYTEST) $(COVERED) $(EACH_CORE) -m "not slow and not alone"
	COVERAGE_FILE=.coverage.jit $(PYTEST) $(COVERED) -m "not slow and alone"

test-nojit: $(VENV)/.done  ## the chapters' tests on small shapes, kernels as plain Python; ALL=1: every test
	COVERAGE_FILE=.coverage.nojit NUMBA_DISABLE_JIT=1 $(PYTEST) $(COVERED) $(EACH_CORE) -m "not slow and not alone" \
		$(if $(ALL),,$(KERNEL_CODE_TESTS))
	$(if $(ALL),COVERAGE_FILE=.coverage.nojit NUMBA_DISABLE_JIT=1 $(PYTEST) $(COVERED) -m "not slow and alone")

test-cpus: $(VENV)/.done  ## the kernels' tests, compiled as for other x86 processors: AVX2, and no vectors at all
	NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx2,+fma,+popcnt $(BIN)/python -m pytest -m "not slow" $(KERNEL_TESTS)
	NUMBA_CPU_NAME=generic $(BIN)/python -m pytest -m "not slow" $(KERNEL_TESTS)

test-arm64: $(VENV)/.done  ## the kernels' tests, packed files and a study on emulated ARM; Debian, as root
	$(BIN)/python tests/arm64.py $(if $(ALL),--all)

.venv-oldest/.done: requirements.txt Makefile
	$(PYTHON_OLDEST) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install -q -r requirements.txt $(OLDEST) && touch $@

test-oldest: .venv-oldest/.done .venv-numpy1/.done  ## the tests with the oldest libraries; the kit with NumPy 1
	.venv-oldest/bin/python -m pytest -m "not slow"
	.venv-numpy1/bin/python -m pytest -m "not slow" $(KIT_TESTS)

# the package alone, to test a kernel that needs NumPy 1: bits, conv, reference, testing
.venv-numpy1/.done: requirements.txt Makefile
	$(PYTHON_OLDEST) -m venv .venv-numpy1
	.venv-numpy1/bin/python -m pip install -q numpy==1.26.4 numba==0.60.0 pytest hypothesis==6.130.0 && touch $@

.venv-newest:
	$(PYTHON_NEWEST) -m venv $@

test-newest: .venv-newest  ## the same with the newest, brought up to date each time
	.venv-newest/bin/python -m pip install -q -U -r requirements.txt
	.venv-newest/bin/python -m pytest -m "not slow"

test-all: $(VENV)/.done  ## the long ones too
	$(BIN)/python -m pytest

covered:  ## after make test COVER=1 and make test-nojit COVER=1: the lines that neither reached
	$(BIN)/python -m coverage combine && $(BIN)/python -m coverage report --fail-under=95

notebooks: $(VENV)/.done  ## every notebook from an empty kernel, nothing kept; HBN_FAST=1 for fewer steps
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 tutorials/*.ipynb

bench: $(VENV)/.done  ## five tables of timings, into runs/bench/bench-KIND.json, KIND the processor's
	$(BIN)/python -m benchmarks $(BENCH)

bench-peers: $(VENV)/.done  ## PyTorch and OpenVINO, to be measured against
	$(BIN)/python -m pip install "torch==2.13.0" openvino --extra-index-url $(TORCH_INDEX)

lint: $(VENV)/.done
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell

types: $(VENV)/.done  ## the type hints, as pyproject.toml says
	$(BIN)/mypy

clean:  ## the environments; what was trained stays
	rm -rf $(VENV) .venv-oldest .venv-numpy1 .venv-newest

clean-runs:  ## everything trained and measured
	rm -rf runs
