# Everything runs in .venv, which the first target sets up. A later run skips that.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
MINUTES ?= 20
JOBS ?= 2
DATA ?= ../shared/data
N ?= 5000
SEED ?= 0
# One exact version where there is no GPU, so that a CPU build found first is kept and no looser requirement replaces it
# with gigabytes of CUDA. Where pip finds no CPU build of its own: make TORCH='torch --index-url URL-OF-CPU-WHEELS' test
TORCH ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo torch || echo torch==2.13.0)

.DEFAULT_GOAL := help
.PHONY: help test lint demo bench bench-mixed packs fuzz clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/.installed: pyproject.toml
	@test -n '$(PYTHON)' || { echo 'error: Python 3.11 or later is needed; make PYTHON=/path/to/python test' >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[all]' --group dev
	touch $@

test: lint       ## the whole check: lint, format, types, import rules, tests
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadgroup

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

demo: $(VENV)/.installed  ## a few clips, stock and steered: a table, a picture, a page
	$(BIN)/python -m steer_asr_benchmarks.demo

bench: $(VENV)/.installed ## the numbers of the README, from DATA (see README)
	DATA=$(DATA) BIN=$(BIN) benchmarks/run_bench.sh

bench-mixed: $(VENV)/.installed ## a few words inside minutes of noise, mixed from DATA
	DATA=$(DATA) BIN=$(BIN) benchmarks/run_mixed.sh

packs: $(VENV)/.installed ## remakes the shipped packs for tiny.en and base from DATA
	for name in tiny.en base; do \
	  $(BIN)/steer-asr-train make training/recipes/$$name.yaml --data $(DATA) --work runs -o steer_asr/packs/$$name || exit; \
	done

fuzz: $(VENV)/.installed  ## N damaged files (of SEED) to a running server; the table goes to docs/fuzz.md
	$(BIN)/python -m tests.serving.fuzz -n $(N) --seed $(SEED) -o docs/fuzz.md

soak: $(VENV)/.installed  ## MINUTES of load on a server whose parts are killed; the table goes to docs/soak.md
	$(BIN)/python -m tests.serving.soak --minutes $(MINUTES) -o docs/soak.md

clean:           ## removes what the targets made, .venv included
	rm -rf $(VENV) out runs
