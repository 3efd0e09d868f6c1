SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
UV_VERSION := 0.13.9
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
TIERS := $(wildcard tests/unit tests/chart tests/oracle tests/cluster tests/e2e)
CRD := crds/tonnage.dev_llmdeployments.yaml
CLUSTER ?= local
FAULTS := $(addprefix tests/cluster/test_,stop_at_every_call.py faults.py killed.py wire.py)

help: ## show this list
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

.venv/.ready: requirements/dev.txt operator/pyproject.toml worker/pyproject.toml
	@tests/harness/prerequisites.sh python
	@[ -x $(PYTHON) ] || python3 -m venv .venv
	@[ -x .venv/bin/uv ] || { $(PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m ensurepip >/dev/null; $(PYTHON) -m pip install -q uv==$(UV_VERSION); }
	.venv/bin/uv pip install -q --python $(PYTHON) --require-hashes -r requirements/dev.txt
	.venv/bin/uv pip install -q --python $(PYTHON) --no-deps --no-build-isolation -e operator -e worker
	@$(PYTHON) -m compileall -q operator/src worker/src
	@touch $@

venv: .venv/.ready ## make .venv with all tools

.PHONY: help venv prerequisites demo demo-down test test-unit test-oracle test-cluster test-e2e bench-gpu bench-gpu-table bench-heal bench-inventory bench-memory bench-operator bench-planning soak soak-hostile soak-sequences soak-oracle golden-choices lint format crd soak-crash reliability
prerequisites: .venv/.ready
	@tests/harness/prerequisites.sh cluster

demo: $(if $(filter existing,$(CLUSTER)),.venv/.ready,prerequisites) ## start a local Kubernetes, serve SmolLM2, compare plan and engine (CLUSTER=existing OPERATOR_IMAGE= WORKER_IMAGE=)
	@PYTHONPATH=tests $(PYTHON) -m harness.demo up --cluster=$(CLUSTER) --operator-image=$(OPERATOR_IMAGE) --worker-image=$(WORKER_IMAGE)

demo-down: .venv/.ready ## remove all that demo started; what was built stays in the cache
	@PYTHONPATH=tests $(PYTHON) -m harness.demo down --cluster=$(CLUSTER)

test: lint prerequisites ## lint and all tests
	@$(PYTEST) $(TIERS)

test-unit: .venv/.ready ## pure tests, no cluster
	@$(PYTEST) $(wildcard tests/unit tests/chart)

test-oracle: prerequisites ## plans on GPUs checked by vLLM's own KV-cache code, no GPU needed
	@$(PYTEST) tests/oracle

test-cluster: prerequisites ## tests on a real API server with simulated nodes
	@$(PYTEST) tests/cluster

test-e2e: prerequisites ## tests on a real node with the real engine (root)
	@$(PYTEST) tests/e2e

bench-gpu: .venv/.ready ## real engines on a GPU against their plans (ENGINE_PYTHON=: an interpreter with vLLM and the worker; ROWS=: a regular expression)
	@PYTHONPATH=tests $(PYTHON) -m bench.gpu --python $(or $(ENGINE_PYTHON),python3) --only '$(ROWS)'

bench-gpu-table: .venv/.ready ## what plans gain on a GPU, from the rows that are recorded
	@PYTHONPATH=tests $(PYTHON) -m bench.gpu --recorded

bench-heal: prerequisites ## how long a child deleted by hand is away, beside the same done by hand
	@PYTHONPATH=tests $(PYTHON) -m bench.heal

bench-inventory: .venv/.ready ## how long the inventory of 1,000 nodes and 5,000 pods takes
	@PYTHONPATH=tests $(PYTHON) -m bench.inventory

bench-memory: .venv/.ready ## KV tokens, weights and bytes left by ours and by public estimators against the engine's own, and the speed
	@PYTHONPATH=tests $(PYTHON) -m bench.memory

bench-operator: prerequisites ## latency, burst, writes, restart, CPU and memory of the operator beside two floors (root; 17 minutes)
	@PYTHONPATH=tests $(PYTHON) -m bench.operator

bench-planning: .venv/.ready ## how long a plan over ten pools takes, and what plans leave unused of real starts
	@PYTHONPATH=tests $(PYTHON) -m bench.planning

soak: soak-hostile soak-crash soak-sequences soak-oracle ## all long runs

soak-hostile: .venv/.ready ## 100,000 hostile config.json files: clean refusals or sane answers only (10 minutes)
	@PYTHONPATH=tests $(PYTHON) -m soak.hostile

soak-crash: prerequisites ## the operator's process killed 200 times at random moments (30 minutes)
	@TONNAGE_KILLS=200 $(PYTEST) -q -s tests/cluster/test_killed.py 2>&1 | tee tests/soak/results/crash.txt

reliability: prerequisites ## all faults, and the table of docs/reliability.md from what came of them
	@mkdir -p build; rm -f build/reliability.json
	@TONNAGE_RELIABILITY=build/reliability.json $(PYTEST) -q $(FAULTS)
	@PYTHONPATH=tests $(PYTHON) -m cluster.reliability build/reliability.json

soak-sequences: prerequisites ## 1,000 histories of generated objects on a real API server: idempotent, independent of the past (TONNAGE_SEED=)
	@PYTHONPATH=tests $(PYTHON) -m soak.sequences

soak-oracle: prerequisites ## every plan of the grid, and all that would be better, by vLLM's own code (hours; goes on where it was stopped)
	@PYTHONPATH=tests nice $(PYTHON) -m soak.oracle | tee tests/soak/results/oracle.txt

golden-choices: .venv/.ready ## write the table of choices anew (tests/oracle/choices.txt)
	@PYTHONPATH=tests $(PYTHON) -m oracle.choices

lint: .venv/.ready ## style, types, layers
	@.venv/bin/ruff check -q .
	@.venv/bin/ruff format -q --check .
	@.venv/bin/mypy operator/src worker/src
	@MYPYPATH=tests:operator/src .venv/bin/mypy tests/harness tests/bench tests/oracle tests/sequences tests/soak tests/conftest.py
	@.venv/bin/lint-imports

format: .venv/.ready ## let ruff format everything
	@.venv/bin/ruff check -q --fix .
	@.venv/bin/ruff format -q .

crd: .venv/.ready ## generate the CustomResourceDefinition and the tables of docs/api.md from tonnage.api
	@$(PYTHON) -m tonnage.cli.main crd > $(CRD).new && mv $(CRD).new $(CRD)
	@cp $(CRD) charts/tonnage/crds-generated/llmdeployments.yaml
	@PYTHONPATH=tests $(PYTHON) -m harness.reference
