# Two commands do all: `make run` takes the synthetic cohort down to a report, `make test` passes the tests.
# Neither needs root or a system package; `make env` alone makes the environment both of them use.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
# torch has a line of its own because its wheel depends on the machine: CPU where only that is offered, CUDA elsewhere.
TORCH ?= torch==2.13.0
BIN := .venv/bin
export ITERATIVE_DO_NOT_TRACK := 1
export GX_ANALYTICS_ENABLED := False
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help env run test fuzz faults mutate check site lock clean

help:
	@echo "make run    reproduce the pipeline of dvc.yaml and print the report's path"
	@echo "make test   run the tests"
	@echo "make fuzz   read 12,000 damaged files; FUZZ_COUNT (inputs a kind), FUZZ_SEED and FUZZ_KINDS choose others"
	@echo "make faults kill each stage and damage each kind of file of a tiny project; FAULTS_POINTS, FAULTS_SEED"
	@echo "make mutate plant small faults in the code, and print how many of them the tests find (COUNT, SEED)"
	@echo "make env    make .venv from the lock file (the others do it when needed)"
	@echo "make check  ruff, mypy and the import floors"
	@echo "make site   the documentation as a site, in docs/_build"
	@echo "make lock   resolve pyproject.toml into requirements.lock again (needs the network)"

env: .venv/.complete

.venv/.complete: requirements.lock pyproject.toml
	@echo "== making .venv from requirements.lock (some minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: env
	@[ -d .git ] || { echo "make run needs a Git clone: DVC ties every result to a commit"; exit 1; }
	@# What will be done, how long each stage took last time on this machine, and what disk it needs.
	@$(BIN)/doseledger why --plan
	@# A model that fails its gate has a report all the same: say where, then fail.
	@$(BIN)/dvc repro; status=$$?; $(BIN)/doseledger where; exit $$status

test: env
	# Two at a time, a file staying on one process: its fixtures are made once.
	$(BIN)/python -m pytest tests -n 2 --dist loadfile

# The same inputs again with the same seed; 12 inputs a kind are part of `make test`.
fuzz: env
	FUZZ_COUNT=$${FUZZ_COUNT:-1500} FUZZ_SEED=$${FUZZ_SEED:-1} nice -n 10 $(BIN)/python -m pytest tests/fuzz -n 2 -q

# About fifteen minutes of CPU; three of its tests are part of `make test`.
faults: env
	FAULTS_POINTS=$${FAULTS_POINTS:-1} FAULTS_SEED=$${FAULTS_SEED:-1} nice -n 10 $(BIN)/python -m pytest tests/test_faults.py -q

mutate: env
	nice -n 10 $(BIN)/python benchmarks/mutants.py --count $${COUNT:-60} --seed $${SEED:-1}

check: env
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

site: env
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build
	@echo "docs/_build/README.html"

# Resolved for torch's CPU and CUDA builds alike: torch and what only its CUDA wheels ask for stay out.
lock:
	$(PYTHON) -m venv .venv && $(BIN)/python -m pip install -qq uv
	echo "$(TORCH)" > .venv/torch.txt
	$(BIN)/uv pip compile pyproject.toml --group dev --python-version 3.11 --generate-hashes --no-header \
	  --constraint .venv/torch.txt --no-annotate --quiet --output-file .venv/all.lock
	$(BIN)/python -c "import re,sys; t=open('.venv/all.lock').read(); b=re.split(r'(?m)^(?=[a-z0-9])', t); \
	  sys.stdout.write(''.join(x for x in b if not re.match(r'(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)(\[\w+\])?==', x)))" > requirements.lock

clean:
	rm -rf .venv
