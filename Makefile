# Everything on one machine. `make align` and `make test` set up what they need.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Two files of tests at a time, in their order. Threads that wait leave the cores to the tests beside them, and what
# pytest compiles is kept for the next run: without that, each process spends 9 s on it.
PYTEST := OMP_WAIT_POLICY=PASSIVE PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help align test quick lint compile images bench speed chaos costs clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

align: $(READY) ## align a small language model online, on this machine (about 15 minutes, set-up included)
	@$(BIN)/oatflow align $(ARGS)

test: $(READY) lint ## run every test, the slow ones too
	@images/cpu/browser.sh
	@VENV=$(VENV) images/cpu/kustomize.sh
	@images/cpu/engine.sh
	@$(PYTEST) $(ARGS)

quick: $(READY) ## run the tests that need no vLLM, no DeepSpeed and no server
	@$(PYTEST) -m "not slow" $(ARGS)

chaos: $(READY) ## kill, race and damage experiments at random for a minute (tests/README.md)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos $(ARGS)

costs: $(READY) ## show what early and late rounds cost: store operations, CPU and wall seconds
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.costs $(ARGS)

lint: $(READY) ## check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

compile: $(READY) ## write the pipeline as alignment.yaml, to upload in the Kubeflow UI
	@$(BIN)/oatflow compile $(ARGS)

images: $(READY) ## build the container images; VARIANT=gpu for a cluster with GPUs (images/README.md)
	@PYTHON=$(BIN)/python images/build.sh

bench: $(READY) ## show where the time of the last round went
	@$(BIN)/oatflow benchmark $(ARGS)

speed: $(READY) ## measure a training step beside a plain transformers loop: tokens a second, peak memory
	@$(BIN)/python -c 'from pathlib import Path; from oatflow.pipelines.laptop.starting_model import find_smollm2; print(find_smollm2(Path(".oatflow")))' \
	  | xargs -I{} $(BIN)/python -m oatflow.components.policy.benchmark {} $(ARGS)

clean: ## remove the environment and everything that align has made
	rm -rf $(VENV) .oatflow images/wheelhouse

$(READY): images/cpu/requirements.txt images/cpu/setup.sh pyproject.toml
	@PYTHON=$(PYTHON) VENV=$(VENV) images/cpu/setup.sh
	@touch $@
