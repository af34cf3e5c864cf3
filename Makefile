.DEFAULT_GOAL := help
.PHONY: help demo up check test test-all coverage world chaos proof compose-proof fuzz bench screenshots format lock clean

# The first Python that is new enough. Another one: make PYTHON=/path/to/python3.12 …
PYTHON ?= $(shell for python in python3.12 python3.11 python3.13 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
VENV := .venv
RUN := $(VENV)/bin
# Without bytecode each process that a test starts would compile everything again.
unexport PYTHONDONTWRITEBYTECODE
READY := $(VENV)/.ready
DEMO_READY := $(VENV)/.ready-demo
BENCH_READY := $(VENV)/.ready-bench
IN_PARALLEL := --numprocesses 3 --dist loadfile --no-loadscope-reorder
LOCK := $(RUN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEMO_READY) ## Show the guarantee: a signup while Redis is down, and its mail that arrives all the same
	@$(RUN)/python -m embedded demo

up: $(DEMO_READY) ## Run the whole service on this machine until Ctrl-C; its data stay in .outbox/
	@$(RUN)/python -m embedded up

check: $(READY) ## Format, lint, types, import rules, links of the documents
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/python -m tests.docs.links

test: $(READY) ## Run the test suite against real servers that it starts itself, without its longest tests
	$(RUN)/pytest $(IN_PARALLEL) -m "not long" $(PYTEST_ARGS)

test-all: $(READY) ## Run all of it, as CI does
	$(RUN)/pytest $(IN_PARALLEL) $(PYTEST_ARGS)

coverage: $(READY) ## The same, and how much of the product it runs; fails below a floor
	$(RUN)/python -m tests.coverage $(COVERAGE_ARGS) $(IN_PARALLEL) $(PYTEST_ARGS)

world: $(READY) ## Run the tests of delivery on Debian's PostgreSQL, Redis, PgBouncer, Postfix: make world WORLD_ARGS="-k postfix"
	$(RUN)/python -m tests.world $(WORLD_ARGS)

chaos: $(READY) ## Kill everything at random while clients sign up: make chaos CHAOS_ARGS="--seed 1 --duration 60"
	$(RUN)/python -m tests.chaos $(CHAOS_ARGS)

proof: $(READY) ## Run the long proofs: 48 h of outages, 5,000,000 waiting messages, failovers, 300 signals for stock RQ, models
	$(RUN)/python -m tests.proof
	$(RUN)/python -m tests.failover
	$(RUN)/python -m tests.exim
	$(RUN)/python -m tests.crash.proof --kills 200 --terms 100
	$(RUN)/python -m tests.model --messages 1 --faults 2
	$(RUN)/python -m tests.model --messages 2 --max-retries 0 --faults 1
	FOREIGN_EXAMPLES=300 $(RUN)/pytest -p no:xdist --override-ini timeout=3600 tests/foreign

compose-proof: $(READY) ## Run compose.yaml and the Kubernetes containers on a Docker engine of its own, in minutes
	$(RUN)/pytest --override-ini python_files='proof_*.py' --override-ini timeout=1800 -p no:xdist -rA \
		tests/compose_proof $(PYTEST_ARGS)

bench: $(BENCH_READY) ## Measure beside the usual way, the floor and other queues: make bench BENCH_ARGS="--quick --only relay"
	$(RUN)/python -m bench $(BENCH_ARGS)

fuzz: $(READY) ## Check the running API against its OpenAPI document: make fuzz FUZZ_ARGS="--examples 1000 --seed 1"
	$(RUN)/python -m tests.fuzz $(FUZZ_ARGS)

screenshots: $(READY) ## Take the pictures in docs/images: every page and mail in headless Chromium
	$(RUN)/pytest tests/browser --screenshots

format: $(READY) ## Format the code and fix what the linter can
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

lock: $(READY) ## Resolve the dependencies again
	$(RUN)/pip install --quiet pip-tools
	$(LOCK) --upgrade --output-file requirements.lock setup.cfg
	$(LOCK) --upgrade --extra dev --constraint requirements.lock --output-file requirements-dev.lock setup.cfg
	$(LOCK) --upgrade --extra embedded --constraint requirements-dev.lock --output-file requirements-demo.lock setup.cfg
	$(LOCK) --upgrade --extra tracing --constraint requirements-dev.lock --output-file requirements-tracing.lock setup.cfg
	$(LOCK) --upgrade --extra bench --constraint requirements-dev.lock --output-file requirements-bench.lock setup.cfg

clean: ## Remove the virtual environment and the data of `make up` and `make compose-proof`
	rm -rf $(VENV) .outbox .compose-proof

# The locked versions, each checked by its hash. What the demo needs is a part of what the tests need.
INSTALL := $(RUN)/python -m pip install --quiet --disable-pip-version-check
MAKE_VENV = test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }; \
	$(PYTHON) -m venv $(VENV)

$(DEMO_READY): requirements-demo.lock
	@echo "Installing the service, PostgreSQL and Redis into $(VENV) (about a minute, once) …"
	@$(MAKE_VENV)
	@$(INSTALL) --require-hashes --requirement requirements-demo.lock
	@touch $@

# The project itself, editable, is installed last: it asks the index for nothing.
$(READY): requirements-dev.lock setup.cfg pyproject.toml
	@echo "Installing the tools of the checks and tests into $(VENV) (about three minutes, once) …"
	@$(MAKE_VENV)
	@$(INSTALL) --require-hashes --requirement requirements-dev.lock
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $(DEMO_READY) $@

# The peers that the bench compares with, in addition to the rest.
$(BENCH_READY): $(READY) requirements-bench.lock
	@echo "Installing the peers of the bench into $(VENV) (about a minute, once) …"
	@$(INSTALL) --require-hashes --requirement requirements-bench.lock
	@touch $@
