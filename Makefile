# One command a line; `make` alone lists them. No target needs more than Python 3.11 and make.
.DEFAULT_GOAL := help
.PHONY: help run ui test check fix bench setup clean
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
PROFILE ?= demo
BENCH ?= --help

# An environment that a moved folder or a removed Python has broken is made again.
ifneq ($(shell ($(BIN)/python -c 'print("ok")') 2>/dev/null),ok)
.PHONY: $(READY)
endif

help:  ## list these targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

run: $(READY)  ## train, evolve, judge and report: the demo, a few minutes (PROFILE=smoke is faster)
	@$(BIN)/symbio run --profile $(PROFILE)

ui: $(READY)  ## Prefect's server, UI, deployments and a worker, until Ctrl-C
	@$(BIN)/python -m deployments.up

# One more than there are cores: many tests wait for servers and for processes they have started.
test: check  ## everything that has to hold: format, lint, types, tests
	@$(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder \
		-n "$$($(BIN)/python -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))')"

check: $(READY_DEV)  ## format, lint and types alone
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

fix: $(READY_DEV)  ## put format and lint right, bring prefect.yaml up to date with the profiles
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/python -m deployments.refresh

bench: $(READY)  ## measure something (BENCH=name; without it, what there is)
	@$(BIN)/symbio bench $(BENCH)

setup: $(READY_DEV)  ## the environment in .venv, with the tools of a developer

clean:  ## remove the environment and all caches; runs in storage/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

$(READY): constraints.txt pyproject.toml
	@bash deployments/install.sh $(VENV) 'orchestration,demo'
	@rm -f $(READY_DEV) && touch $@

$(READY_DEV): $(READY)
	@bash deployments/install.sh $(VENV) 'orchestration,demo,cloud,dev'
	@touch $@
