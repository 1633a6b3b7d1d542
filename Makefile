# Everything runs in .venv, which the first target that needs it sets up.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench bench-quick torture

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.set-up
TORTURE_ROUNDS ?= 3
# One thread for each of the two workers: more would only take turns on small machines.
TEST_ENV := OMP_NUM_THREADS=1
export PYTHON

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 20

setup: $(STAMP) ## the environment in .venv, with what tests and benchmarks need

$(STAMP): constraints.txt pyproject.toml
	@scripts/setup.sh $(STAMP)

demo: $(STAMP) ## trains on the medical starter and shows what came of it
	@$(PY) scripts/demo.py

test: $(STAMP) ## every test; those that measure time or memory alone, at the end
	@$(TEST_ENV) $(PY) -m pytest -n 2 --dist loadfile -m "not alone and not torture"
	@$(PY) -m pytest -m alone

lint: $(STAMP) ## ruff, mypy, and the rules of CONTRIBUTING.md
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(PY) scripts/lint.py

format: $(STAMP) ## puts the code into its form
	@$(VENV)/bin/ruff check --fix-only .
	@$(VENV)/bin/ruff format .

bench: $(STAMP) ## how fast we and others are, as benchmarks/RESULTS.md; BENCH="--only chat", "--all", "--help"
	@$(PY) -m benchmarks $(BENCH)

bench-quick: $(STAMP) ## a few minutes against our own plain loops; fails where we are slower than promised
	@$(PY) -m benchmarks.quick

torture: $(STAMP) ## property tests with ever new examples; trainings killed and disks filled at random moments
	@for round in $$(seq $(TORTURE_ROUNDS)); do \
		seed=$$RANDOM; echo "== round $$round of $(TORTURE_ROUNDS), seed $$seed"; \
		$(TEST_ENV) $(PY) -m pytest -q -n 2 -m hypothesis --hypothesis-profile=torture --hypothesis-seed=$$seed; \
	done
	@echo "== several processes"; $(TEST_ENV) $(PY) -m pytest -q -m torture
	@echo "== kills"; $(PY) scripts/torture.py kills
	@echo "== full disks"; $(PY) scripts/torture.py disk --case all
