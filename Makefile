# presence: set up, serve, test, lint, bench. Every target sets up what it needs; `make gpu` for GPUs, after updates again.
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= 8080
CONFIG ?= config/local.yaml
BIN := .venv/bin

.PHONY: setup gpu serve test lint bench clean

setup: .venv/ready

# What serving needs; what tests need besides is for `setup`.
.venv/serving: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e .
	# Only its weights are wanted: what it depends on needs a compiler, and is never imported.
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt --no-deps resemblyzer
	touch $@

.venv/ready: .venv/serving
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[dev]"
	touch $@

# Of ONNX Runtime and of FAISS, the package for GPUs is the same module: it replaces the other, in the same version.
gpu: setup
	$(BIN)/uv pip uninstall --quiet --python $(BIN)/python onnxruntime onnxruntime-gpu faiss-cpu faiss-gpu
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt \
	  "onnxruntime-gpu[cuda,cudnn]$$(sed -n 's/^onnxruntime==/==/p' constraints.txt)" \
	  "faiss-gpu$$(sed -n 's/^faiss-cpu==/==/p' constraints.txt)"

serve: .venv/serving
	$(BIN)/presence serve --config $(CONFIG) --port $(PORT)

test: setup
	tests/setup.sh
	# Tests of running services are one after the other in one of two processes, but for a few: tests/conftest.py.
	$(BIN)/pytest -n 2 --no-loadscope-reorder --cov --cov-report=term:skip-covered

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m bench

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage dist build bench/out
