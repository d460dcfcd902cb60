# Every target sets up what it needs: a machine needs Python 3.10 to 3.13, make and a package index;
# for TensorFlow.js models Node.js 16 or newer with npm, too.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
INSTALL := install --no-deps

# Apart, so that an edit of pyproject.toml does not install every package again.
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready

# What runs TensorFlow.js models (a file in which npm notes what it has installed), and for tests what
# makes some.
TFJS := transforms/models/tfjs
NPM := $(TFJS)/node_modules/.package-lock.json
NPM_QUIET := --ignore-scripts --no-audit --no-fund --loglevel=error
CONVERTER := .cache/converter
CONVERTER_READY := $(CONVERTER)/.ready

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.10 \
	--generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock" $(LOCK_ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-digits test test-cluster test-conversions test-deploy test-faults soak bench lint types \
	format lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' Makefile

setup: $(READY) $(NPM)  ## install the locked packages into .venv (every target below does)

demo: $(READY)  ## train two versions on real data, evaluate and compare them
	@$(BIN)/evalbeam demo

demo-digits: $(READY) $(NPM)  ## the same for one model of images, in every form that it ships in
	@$(BIN)/evalbeam demo digits

test: $(READY) $(NPM)  ## run the tests; ARGS="-k name" goes to pytest
	@$(BIN)/python -m pytest $(ARGS)

test-cluster: $(READY) $(NPM)  ## run the job on real clusters: Flink, Spark, Prism (a quarter of an hour)
	@tests/cluster/fetch.sh $(BIN)/python
	@$(BIN)/python -m pytest tests/cluster $(ARGS)

test-deploy: $(READY)  ## check what deploy/ has, as far as one machine can (some minutes)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/deploy $(ARGS)

test-conversions: $(READY) $(NPM) $(CONVERTER_READY)  ## evaluate a model in every form (wants Node)
	@$(BIN)/python -m pytest tests/conversions $(ARGS)

test-faults: $(READY)  ## kill processes, fill disks, interrupt publishing (some minutes)
	@$(BIN)/python -m pytest tests/faults $(ARGS)

soak: $(READY)  ## random inputs, then random faults (ARGS="--minutes 60": an hour of each)
	@$(BIN)/python tests/faults/fuzz.py $(ARGS)
	@$(BIN)/python tests/faults/soak.py $(ARGS)

lint: $(READY)  ## check format and style
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .

types: $(READY)  ## check types
	@$(BIN)/mypy

bench: $(READY)  ## measure speed against TFMA and the floor (half an hour; ARGS=--quick: 3 minutes)
	@$(BIN)/python tests/benchmarks/bench.py $(ARGS)

format: $(READY)  ## format the code and fix what ruff can fix
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: $(READY)  ## lock what pyproject.toml asks for; LOCK_ARGS=--upgrade takes newer versions
	@$(COMPILE) pyproject.toml --extra demo --extra onnx --extra s3 --output-file requirements.txt
	@$(COMPILE) pyproject.toml --extra demo --extra onnx --extra s3 --group dev --output-file requirements-dev.txt
	@$(COMPILE) deploy/airflow/requirements.in --output-file deploy/airflow/requirements.txt
	@$(COMPILE) tests/conversions/converter/requirements.in \
		--output-file tests/conversions/converter/requirements.txt
	@cd $(TFJS) && npm install --package-lock-only $(NPM_QUIET)

clean:  ## remove .venv, caches and the demo's data and models; results stay
	@rm -rf $(VENV) build dist demo *.egg-info deploy/package/*.egg-info .mypy_cache .pytest_cache \
		.ruff_cache .hypothesis .cache $(TFJS)/node_modules
	@find beam_jobs transforms tests deploy -name __pycache__ -prune -exec rm -rf {} +

# Where .venv is broken (its Python is gone, say), its stamps count for nothing.
ifneq ($(shell { $(BIN)/python -c 'print("works")'; } 2>/dev/null),works)
.PHONY: $(LOCKED)
endif

# Some packages come as source alone; pip and the build tools come first, so that the lock's are used.
$(LOCKED): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { \
		echo "evalbeam needs Python 3.10 to 3.13, not $$($(PYTHON) --version 2>&1);" \
		"name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Installing the locked packages into $(VENV), which takes some minutes ..." >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@sed -n -E '/^(pip|setuptools|wheel)==/,/[^\\]$$/p' requirements-dev.txt >$(VENV)/build-tools.txt
	@$(PIP) $(INSTALL) --require-hashes --requirement $(VENV)/build-tools.txt
	@$(PIP) $(INSTALL) --require-hashes --no-build-isolation --requirement requirements-dev.txt
	@touch $@

# Without setuptools' warning that installing this way is for development.
$(READY): $(LOCKED) pyproject.toml
	@PYTHONWARNINGS=ignore $(PIP) $(INSTALL) --no-build-isolation --editable .
	@touch $@

$(NPM): $(TFJS)/package-lock.json
	@if command -v npm >/dev/null; then npm ci $(NPM_QUIET) --prefix $(TFJS) >/dev/null; else \
		echo "There is no npm: TensorFlow.js models cannot run, their tests are skipped." >&2; fi

# Apart from .venv, whose TensorFlow the converter does not go with.
$(CONVERTER_READY): tests/conversions/converter/requirements.txt | $(READY)
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then \
		echo "Installing TensorFlow.js's converter into $(CONVERTER), which takes minutes ..." >&2 && \
		$(BIN)/python -m venv --clear $(CONVERTER) && \
		$(PIP) --python $(CONVERTER) $(INSTALL) --only-binary :all: --require-hashes --requirement $< && \
		touch $@; \
	else echo "TensorFlow.js's converter needs Python 3.10 or 3.11: its tests are skipped." >&2; fi
