# Everything sets itself up: `make demo` and `make test` work on a fresh clone, either one first.
SHELL := /bin/bash
VENV ?= .venv
# The lock follows the machine: CUDA where an NVIDIA GPU answers, CPU elsewhere. `make KIND=cpu ...` overrides it.
KIND ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed-$(KIND)
LANES ?= --numprocesses=2 --dist=loadscope --no-loadscope-reorder
JOB ?= python jobs/pipeline.py --recipe recipes/tiny.yaml --set run.root=$(CURDIR)/runs/tiny

.DEFAULT_GOAL := help
.PHONY: help setup demo chat up submit down check test test-gpu soak lint docs golden lock lock-check gpu-kit clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## Make .venv from the lock (the others do it by themselves)

$(INSTALLED): $(addprefix requirements/,$(KIND).lock install.sh packages.sh uv.sh uv.txt) pyproject.toml
	@echo "setting up $(VENV) from requirements/$(KIND).lock (a minute or two, once)"
	@requirements/install.sh $(VENV) $(KIND)
	@touch $@

demo: $(INSTALLED) ## Make an aligned model from scratch in the embedded world: dSFT, AI feedback, dDPO, held-out check
	@$(PY) -m zephyr_ray run tiny

chat: $(INSTALLED) ## Serve the demo's model with a chat page on http://127.0.0.1:8000 (after make demo)
	@$(PY) -m zephyr_ray serve --run runs/tiny --open

up: $(INSTALLED) ## Start a Ray cluster on this machine, with token authentication, to try the cluster way on
	@$(PY) -m zephyr_ray up

submit: $(INSTALLED) ## Submit the demo to it, or JOB='python jobs/dpo.py --recipe FILE --set run.root=/a/folder'
	@$(PY) -m zephyr_ray submit --local --working-dir . -- $(JOB)

down: $(INSTALLED) ## End it, and no other Ray cluster
	@$(PY) -m zephyr_ray down

check: $(INSTALLED) lint ## Lint, types and unit tests
	@$(PY) -m pytest $(LANES) tests/unit

test: $(INSTALLED) lock-check ## Run all tests
	@$(PY) -m pytest $(LANES)

test-gpu: $(INSTALLED) ## Run the tests that need a GPU (make test skips them where there is none)
	@$(PY) -m pytest tests/gpu

soak: $(INSTALLED) ## Kill jobs and stop drivers again and again, for as long as it takes (not part of make test)
	@ZEPHYR_TEST_INTERLEAVINGS=50 $(PY) -m pytest tests/unit/pipeline/test_protocol.py
	@$(PY) -m pytest -m soak tests/integration

lint: $(INSTALLED) ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

docs: $(INSTALLED) ## Build the documentation as a site, into build/site
	@$(PY) -m docs.pages build/docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict  # with --quiet it would count no warning

golden: $(INSTALLED) ## Work published numbers out again from recorded data; DATA=folder of them, or ZEPHYR_TEST_DATA
	@$(PY) benchmarks/golden.py $(if $(DATA),--data $(DATA))

lock: ## Resolve pyproject.toml into both locks, keeping what still fits
	@requirements/lock.sh

lock-check: $(INSTALLED) ## Check both locks, their hashes and the Dockerfile's steps, without installing
	@$(PY) requirements/check.py

gpu-kit: $(INSTALLED) ## Gather what the GPU benchmark needs on a machine without a network; DATA=pairs.jsonl for real pairs
	@$(PY) benchmarks/gpu_kit.py build/gpu-kit $(if $(DATA),--data $(DATA))

clean: ## Remove the environment and the runs of the demo
	rm -rf $(VENV) runs
