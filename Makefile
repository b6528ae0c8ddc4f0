# Everything runs in .venv, which is made once and refreshed when the locked dependencies change.
# make PYTHON=/path/to/python3.12 ...   chooses the Python that .venv is made of.

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow test-stores test-cluster test-images images control-plane store-servers prometheus kubeconform checkov check bench-peers format docs golden lock clean

PYTHON ?=
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCKED := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
# What is shipped has the versions that it was tested with.
SHIPPED := --constraint requirements/dev.txt $(LOCKED)
export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:  ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-13s %s\n' "$$name" "$$text"; done

venv: $(READY)  ## Make or refresh .venv

$(READY): requirements/dev.txt pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { python=$$(scripts/find-python) && "$$python" -m venv --clear $(VENV); }
	@echo "Installing the locked dependencies (TensorFlow is large: minutes on a slow line) ..."
	@$(BIN)/python -m pip install --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)  ## Serve two small indexes and print curl lines to paste; PORT=8080
	@$(BIN)/kosine demo --port $(PORT)

test: $(READY)  ## Fast tests, under 4 minutes on 2 cores
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m "not slow and not stores and not cluster and not images"

test-slow: $(READY)  ## Tests that take minutes or gigabytes
	@$(BIN)/python -m pytest -m "slow and not cluster and not images"

test-cluster: $(READY)  ## Tests against a real Kubernetes control plane; builds it first where Go is
	@tests/kit/control_plane/test-cluster $(BIN)/python

test-images: $(READY)  ## Build and run the operator's image, as root; ALL=1 for the service's, too, and both on a cluster; GPU=1
	@KOSINE_TEST_GPU_IMAGE=$(GPU) $(BIN)/python -m pytest -rs -m "images$(if $(ALL)$(GPU),, and not slow)" $(if $(GPU),-k gpu) tests/images
	@$(if $(ALL),tests/kit/control_plane/test-cluster $(BIN)/python tests/cluster/test_built_images.py -m images)

images:  ## Build images with buildah, as root: TARGETS="operator service service-gpu"
	@scripts/build-images $(or $(TARGETS),operator service)

control-plane:  ## Build etcd, kube-apiserver and the rest for test-cluster: minutes once, needs Go
	@tests/kit/control_plane/binaries/build

test-stores: $(READY)  ## Tests against object stores as people run them; builds these first where Go is
	@[ -n "$$KOSINE_STORE_SERVERS" ] || tests/kit/store_servers/build || echo "Going on without." >&2
	@$(BIN)/python -m pytest -n 2 -m stores -rs

store-servers:  ## Build an S3 and a GCS server for the storage tests: minutes once, needs Go
	@tests/kit/store_servers/build

prometheus:  ## Build Prometheus and promtool, for the tests of alerts and dashboard: minutes once, needs Go
	@tests/kit/prometheus/build

kubeconform:  ## Build kubeconform, for the test of manifests: half a minute once, needs Go
	@tests/kit/kubeconform/build

checkov:  ## Install checkov, for the test of manifests: half a minute once
	@python=$$(scripts/find-python) && "$$python" -m venv .venv-checkov
	@.venv-checkov/bin/python -m pip install --quiet checkov==3.3.30

check: $(READY)  ## Lint, format, types, arrows between rooms
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-peers:  ## Measure what kosine replaces beside it and write docs/benchmarks.md; PEERS="--shape 100000x768"
	@test -x .venv-bench/bin/python || { python=$$(scripts/find-python) && "$$python" -m venv .venv-bench; }
	@echo "Installing faiss, LitServe, PostgreSQL and TensorFlow beside kosine's own environment ..."
	@.venv-bench/bin/python -m pip install --quiet --require-hashes -r requirements/bench-peers.txt
	@.venv-bench/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	.venv-bench/bin/python -m tests.bench.peers $(PEERS) --write docs/benchmarks.md

format: $(READY)  ## Write the one format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(READY)  ## Write the generated parts of docs/ and charts/
	$(BIN)/python -m tests.kit.generated_docs
	$(BIN)/python -m tests.kit.chart_files

golden: $(READY)  ## Write tests/golden/, what the operator makes of docs/examples/
	@$(BIN)/python -m tests.kit.golden_manifests

lock:  ## Compile requirements/ again (needs uv on PATH); LOCK_ARGS=--upgrade for newer versions
	uv pip compile pyproject.toml --extra cpu --extra s3 --extra gcs --extra arrow --extra bench --extra operator --group dev $(LOCKED) $(LOCK_ARGS) -o requirements/dev.txt
	uv pip compile pyproject.toml --extra cpu --extra s3 --extra gcs --extra arrow $(SHIPPED) $(LOCK_ARGS) -o requirements/service-cpu.txt
	uv pip compile pyproject.toml --extra gpu --extra s3 --extra gcs --extra arrow $(SHIPPED) $(LOCK_ARGS) -o requirements/service-gpu.txt
	uv pip compile pyproject.toml --extra operator $(SHIPPED) $(LOCK_ARGS) -o requirements/operator.txt
	uv pip compile --group build $(SHIPPED) $(LOCK_ARGS) -o requirements/build.txt
	uv pip compile pyproject.toml --extra cpu --group peers --group build $(LOCKED) $(LOCK_ARGS) -o requirements/bench-peers.txt

clean:  ## Remove .venv, caches and build outputs
	rm -rf $(VENV) .venv-bench .venv-checkov .control-plane .prometheus .kubeconform .store-servers build dist .coverage* .hypothesis .mypy_cache .pytest_cache
	rm -rf .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
