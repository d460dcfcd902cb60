# Every target sets up what it needs: a machine needs Python 3.10 to 3.13, make and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input install --no-deps

# Apart, so that an edit of pyproject.toml does not install every package again.
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.10 \
	--generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock" $(LOCK_ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-cluster test-deploy bench lint types format lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## install the locked packages into .venv (every target below does)

demo: $(READY)  ## train two versions on real data, evaluate and compare them
	@$(BIN)/evalbeam demo

test: $(READY)  ## run the tests; ARGS="-k name" goes to pytest
	@$(BIN)/python -m pytest $(ARGS)

test-cluster: $(READY)  ## run the job on real clusters: Flink, Spark, Prism (a quarter of an hour)
	@tests/cluster/fetch.sh $(BIN)/python
	@$(BIN)/python -m pytest tests/cluster $(ARGS)

test-deploy: $(READY)  ## check what deploy/ has, as far as one machine can (some minutes)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/deploy $(ARGS)

lint: $(READY)  ## check format and style
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .

types: $(READY)  ## check types
	@$(BIN)/mypy

bench: $(READY)  ## measure speed against TFMA and the floor (half an hour; ARGS=--quick: 3 minutes)
	@$(BIN)/python tests/benchmarks/bench.py $(ARGS)

format: $(READY)  ## format the code and mend what style rules can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: $(READY)  ## lock what pyproject.toml asks for; LOCK_ARGS=--upgrade takes newer versions
	@$(COMPILE) pyproject.toml --extra demo --extra onnx --extra s3 --output-file requirements.txt
	@$(COMPILE) pyproject.toml --extra demo --extra onnx --extra s3 --group dev --output-file requirements-dev.txt
	@$(COMPILE) deploy/airflow/requirements.in --output-file deploy/airflow/requirements.txt

clean:  ## remove .venv, caches and the demo's data and models; results stay
	@rm -rf $(VENV) build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		.cache
	@find beam_jobs transforms tests -name __pycache__ -prune -exec rm -rf {} +

# Where .venv is broken (its Python is gone, say), its stamps count for nothing.
ifneq ($(shell { $(BIN)/python -c 'print("works")'; } 2>/dev/null),works)
.PHONY: $(LOCKED)
endif

# Some packages come as source alone; the build tools come first, so that the lock's build them.
$(LOCKED): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { \
		echo "evalbeam needs Python 3.10 to 3.13, not $$($(PYTHON) --version 2>&1);" \
		"name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Installing the locked packages into $(VENV), which takes some minutes ..." >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@sed -n -E '/^(setuptools|wheel)==/,/[^\\]$$/p' requirements-dev.txt >$(VENV)/build-tools.txt
	@$(PIP) --require-hashes --requirement $(VENV)/build-tools.txt
	@$(PIP) --require-hashes --no-build-isolation --requirement requirements-dev.txt
	@touch $@

$(READY): $(LOCKED) pyproject.toml
	@$(PIP) --no-build-isolation --editable .
	@touch $@
