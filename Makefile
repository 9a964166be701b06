# Every target makes the virtual environment if it is missing or older than its requirements.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
DOCS   := $(VENV)/.docs-installed

.DEFAULT_GOAL := help
.PHONY: help train runs test test-slow test-gpu docs lecture lint format reproduce reproduce-all bench dashboard clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(DOCS): $(READY)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[docs]'
	@touch $@

train: $(READY) ## train and evaluate a denoising autoencoder on MNIST (add overrides: make train ARGS="seed=1")
	$(BIN)/python train.py model=denoising data=mnist evaluate=true $(ARGS)

runs: $(READY) ## list all runs and sweeps in runs/index.html
	$(BIN)/python -m autoencoders.index

# Modules are compiled once, also where the environment says not to: the tests start many processes.
test: $(READY) ## run the tests (no network or data sets needed)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist worksteal

test-slow: $(DOCS) ## run the slow tests: real data sets, or long training
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist worksteal --timeout=1800

test-gpu: $(READY) ## run the tests that need a CUDA GPU
	$(BIN)/python -m pytest -m gpu

docs: $(DOCS) ## build the site of these pages, the lecture and the interface: site/html/index.html
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet docs site/html

lecture: $(DOCS) ## execute docs/lecture.ipynb and store its outputs (less than 10 minutes)
	$(BIN)/python -m jupyter execute --inplace docs/lecture.ipynb

lint: $(READY) ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reproduce: $(READY) ## reproduce the quick published results with one seed; writes docs/results.md (6 to 10 minutes)
	$(BIN)/python -m autoencoders.ledger --quick --seeds 0

reproduce-all: $(READY) ## reproduce all of them with three seeds (about ten hours; continues if interrupted)
	$(BIN)/python -m autoencoders.ledger --seeds 0 1 2 --jobs 2

bench: $(READY) ## measure the speed; writes docs/speed.md (20 to 30 minutes; nothing else should run)
	$(BIN)/python -W ignore -m benchmarks $(ARGS)

dashboard: $(READY) ## show the latest offline W&B run in the terminal
	@latest=$$(ls -td runs/*/*/wandb/offline-run-* multirun/*/*/wandb/offline-run-* 2>/dev/null | head -n 1); \
	if [ -z "$$latest" ]; then echo "no run in runs/ or multirun/ that W&B has logged offline: python train.py makes one" >&2; exit 1; fi; \
	exec $(BIN)/wandb leet "$${latest%/*}" # with all its parts: an evaluation is one of its own

clean: ## remove the virtual environment, the site and caches (data and runs stay)
	rm -rf $(VENV) site .pytest_cache .ruff_cache .mypy_cache src/*.egg-info
