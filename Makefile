# One virtual environment, .venv, for everything. A stamp file in it says what is installed; a second run is fast.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: help demo test check lint format wheel bench bench-readers bench-speed bench-peers clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 14

demo: $(VENV)/.core ## analyse two packaged recordings, write their reports to demo/
	@$(RUN) -m anyecg.demo demo

test: $(VENV)/.dev ## run the tests
	@$(RUN) -m pytest $(ARGS)

check: lint test ## what CI runs: format, lint, types, tests

lint: $(VENV)/.dev ## check format, lint and types
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy

format: $(VENV)/.dev ## format the code
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

wheel: $(VENV)/.dev ## build the wheel and the source archive into dist/
	@$(RUN) -m build --outdir dist .

bench: $(VENV)/.core $(VENV)-peers/.made ## time cold starts against peers; writes docs/benchmarks/
	@$(RUN) benchmarks/speed/cold_start.py --peer $(VENV)-peers/bin/python

bench-speed: $(VENV)/.dev ## time networks, long recordings, training, bulk; writes docs/benchmarks/
	@$(RUN) benchmarks/speed/throughput.py $(if $(wildcard data/ptb-xl),--data data)
	@$(RUN) benchmarks/speed/length.py
	@$(RUN) benchmarks/speed/training.py
	@$(RUN) benchmarks/speed/bulk.py

bench-peers: $(VENV)/.core $(VENV)-peers/.made ## time an hour of ECG in other programs and in ours
	@$(RUN) benchmarks/speed/peers.py --peer $(VENV)-peers/bin/python

bench-readers: $(VENV)/.dev ## time readers against the bare libraries; writes docs/benchmarks/
	@$(RUN) benchmarks/speed/readers.py

clean: ## remove caches, builds and the demo's output; .venv stays
	rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("error: Python %d.%d found, 3.11 or newer expected. Set PYTHON=..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing anyecg and what inference needs (no torch)"
	@$(PIP) -e .
	@touch $@

# Peers want other versions of the libraries than we do, so they live apart.
$(VENV)-peers/.made: Makefile
	@$(PYTHON) -m venv $(VENV)-peers
	@$(VENV)-peers/bin/python -m pip install -qq --disable-pip-version-check neurokit2==0.2.13 'openecg[report]==0.11.0'
	@touch $@

# torch first and alone: it is the largest download, and nothing else should decide its version.
$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing torch (the largest download; this can take minutes)"
	@$(PIP) torch==2.13.0
	@echo "installing anyecg with its training and development tools"
	@$(PIP) -e '.[train,dev]'
	@touch $@ $(VENV)/.core
