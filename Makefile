# make demo   three sample models: one that TensorRT refuses and then builds, one that becomes
#             several times as fast on this CPU, one that is best left alone
# make test   lint, types and tests, as CI runs them
# make docs   the documentation in build/docs; a broken link is an error
#
# All set up .venv on the first run; PYTHON chooses the interpreter (3.10 or newer).

SHELL := /bin/bash
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11 python3.10 python,\
	$(shell $(name) -c 'import sys; sys.version_info >= (3, 10) and print("$(name)")' 2>/dev/null)))

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq

.PHONY: demo test lint types docs wheel clean

demo: $(VENV)/.installed-cpu
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo.sh

test: lint types
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .

types: $(VENV)/.installed-dev
	$(BIN)/mypy --strict --no-error-summary

# NO_MKDOCS_2_WARNING silences Material's advice about its successor.
docs: $(VENV)/.installed-docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo "make: no Python 3.10 or newer found; install one, or name it: make PYTHON=/path/to/python" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-cpu: pyproject.toml | $(BIN)/python
	@echo "installing deployconv with onnxruntime, and TensorRT-RTX where it is packaged, into $(VENV)"
	@$(PIP) --editable '.[cpu,rtx]' || { \
		echo "TensorRT-RTX cannot be installed for this Python: going on without it"; \
		$(PIP) --editable '.[cpu]'; }
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing deployconv with its runtimes, PyTorch and the developer tools into $(VENV)"
	@$(PIP) --editable '.[cpu,rtx,openvino,tract,mnn,torch,report,cluster,dev]'
	@touch $@

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	@echo "installing MkDocs into $(VENV)"
	@$(PIP) --editable '.[docs]'
	@touch $@
