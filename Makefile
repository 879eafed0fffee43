# Everything a person types.  `make` alone explains itself.
#
# Needs a CPython of 3.11 or newer and pip; each goal makes .venv itself, with the versions of constraints.txt.
# Works as root and as a plain user; nothing is written outside this folder but pip's own cache.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.ONESHELL:
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
PACKAGES := edge_sdk calibration export training mentoring benchmarks examples
# The half of the suite that a station's Python must pass; it needs neither torch nor onnx.
DEVICE_TESTS := $(wildcard tests/test_*.py) $(wildcard $(addprefix tests/,vision quality cameras runners outbox bundles))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Two cores are shared by BLAS, OpenCV and ours: one thread a library unless a program says otherwise.
export OMP_NUM_THREADS ?= 1
# Matplotlib's folder would be in the home.
export MPLCONFIGDIR ?= $(CURDIR)/build/matplotlib

.PHONY: help install demo test test-pythons test-search check docs wheel clean

help:
	@cat <<'TEXT'
	make demo              the whole loop on real pictures; see build/demo/report.html
	make demo QUICK=1      the same stages, smaller; into build/demo-quick
	make demo DATA=DIR     the same on your own pictures: labels.csv or MVTec layout
	make test              the tests; says what it skipped and the apt line that would end it
	make test-pythons      the device's tests on each of Python 3.10 to 3.13 that is found
	make test-search       the property tests on 2000 new examples each, 3 minutes
	make check             lint, types, layers, figures
	make docs              write the generated pages of docs/reference again
	make wheel             dist/edge_sdk-*.whl, for a station
	make install           only what the others begin with: .venv with everything in it
	make clean             remove build/ and dist/; .venv stays
	TEXT

install: $(VENV)/complete

# A second call is instant: the file is newer than what it was made from.
$(VENV)/complete: pyproject.toml constraints.txt .ci/venv.sh
	@bash .ci/venv.sh $(VENV) '.[dev]'
	touch $@

demo: $(VENV)/complete
	@$(PY) examples/whole_loop.py $(if $(QUICK),--quick) $(if $(DATA),--data "$(DATA)") $(DEMO)

test: $(VENV)/complete
	@$(PY) -m pytest -q -n auto --maxprocesses 4 --cov --cov-report=term $(TESTS)

test-pythons:
	@bash .ci/test-pythons.sh $(DEVICE_TESTS)

test-search: $(VENV)/complete
	@EDGE_SDK_EXAMPLES=search $(PY) -m pytest -q -m hypothesis $(TESTS)

check: $(VENV)/complete
	@echo "ruff"; $(PY) -m ruff check --quiet .
	echo "mypy --strict"; $(PY) -m mypy --strict --no-error-summary $(addprefix -p ,$(PACKAGES))
	echo "import-linter"; $(VENV)/bin/lint-imports --no-logo --no-cache >build/layers.txt 2>&1 || { cat build/layers.txt; exit 1; }
	echo "results"; $(PY) -m benchmarks check --report | grep -v '^missing' || true
	$(PY) -m benchmarks check --report >/dev/null
	echo "check: all well"

docs: $(VENV)/complete
	@$(PY) docs/generate.py
	$(PY) -m benchmarks render

wheel: $(VENV)/complete
	@rm -rf dist
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	ls dist/*.whl

clean:
	@rm -rf build dist
