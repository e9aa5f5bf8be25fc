# Everything runs in .venv, which the first target sets up. A later run skips that.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
# The CPU build of torch where no GPU is to be served; any looser requirement pulls several gigabytes of CUDA.
TORCH ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo torch || echo torch==2.13.0)

.DEFAULT_GOAL := help
.PHONY: help test lint demo bench packs clean

help:            ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

test: lint       ## the whole check: lint, format, types, import rules, tests
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

demo: $(VENV)/.installed  ## a few clips, stock and steered: a table, a picture, a page
	$(BIN)/python -m steer_asr_benchmarks.demo

bench: $(VENV)/.installed ## the numbers of the README, from DATA (see README)
	DATA=$(DATA) BIN=$(BIN) benchmarks/run_bench.sh

packs: $(VENV)/.installed ## remakes the shipped packs for tiny.en and base from DATA
	for name in tiny.en base; do \
	  $(BIN)/steer-asr-train make training/recipes/$$name.yaml --data $(DATA) --work runs -o steer_asr/packs/$$name || exit; \
	done

clean:           ## removes what the targets made, .venv included
	rm -rf $(VENV) out runs
