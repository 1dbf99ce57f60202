# make demo   rewrite a sample model: site table, certificate, parity, latency, and, where
#             TensorRT-RTX is packaged (Linux on x86-64), a compile check that needs no GPU
# make test   lint, types and tests, as CI runs them
# make docs   the documentation in build/docs; a broken link is an error
#
# All set up .venv on the first run; PYTHON chooses the interpreter (3.10 to 3.13).

SHELL := /bin/bash
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python3.10 python,\
	$(shell $(name) -c 'import sys; (3, 10) <= sys.version_info[:2] < (3, 14) and print("$(name)")' 2>/dev/null)))

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq
DEMO_MODEL := models/text_detector_head.onnx
DEMO_OUTPUT := build/demo/text_detector_head.deploy.onnx
DEMO_TARGETS := $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),--target sm86 --target sm89)

.PHONY: demo test lint types docs wheel clean

demo: $(VENV)/.installed-cpu
	@mkdir -p $(dir $(DEMO_OUTPUT))
	$(BIN)/deployconv rewrite $(DEMO_MODEL) -o $(DEMO_OUTPUT) $(DEMO_TARGETS) --force

test: lint types
	$(BIN)/python -m pytest -q -n 2

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .

types: $(VENV)/.installed-dev
	$(BIN)/mypy --strict --no-error-summary

# NO_MKDOCS_2_WARNING silences Material's advice about its successor.
docs: $(VENV)/.installed-docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo "make: no Python 3.10 to 3.13 found; install one, or name it: make PYTHON=/path/to/python" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-cpu: pyproject.toml | $(BIN)/python
	@echo "installing deployconv with onnxruntime, and TensorRT-RTX where it is packaged, into $(VENV)"
	@$(PIP) --editable '.[cpu,rtx]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing deployconv with its runtimes, PyTorch and the developer tools into $(VENV)"
	@$(PIP) --editable '.[cpu,rtx,torch,dev]'
	@touch $@

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	@echo "installing MkDocs into $(VENV)"
	@$(PIP) --editable '.[docs]'
	@touch $@
