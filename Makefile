# Needs Python 3.11 or newer, make and pip, and nothing else. `make` alone does what CI does.
#
#   make demo    sets everything up, then asks a question about the Python standard library
#   make test    sets everything up, then runs lint, types and all the tests
#   make check   lint and types only
#   make docs    builds the manual into build/docs, links checked, and runs all of its code and the examples
#   make spec    simulates the specification of a run, and replays it on the code; needs node and npm too
#   make links   asks the web whether the manual's links out of it still work
#   make clean   removes what the others made
#
# Another Python: make PYTHON=/path/to/python3.12 demo

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; done)

# A class, or the functions of a file, stay together: they share servers. The first files are those that take longest.
# One worker more than there are cores: many tests wait for a server, or for a limit to come.
PARALLEL := --numprocesses=$(shell echo $$(($$(nproc 2>/dev/null || echo 2) + 1))) --maxprocesses=5 --dist=loadscope --no-loadscope-reorder

# Newer Pythons count the lines that run at little cost; on 3.11 that takes a third of the tests' time.
COVERAGE = $(shell $(BIN)/python -c 'import sys; print(*["--cov=rlm_langchain", "--cov-report=term:skip-covered", \
	"--cov-fail-under=90"] * (sys.version_info >= (3, 12)))')

.PHONY: test check docs links spec demo clean
.DEFAULT_GOAL := test

test: check
	@COVERAGE_CORE=sysmon $(BIN)/python -m pytest --quiet $(PARALLEL) $(COVERAGE)

check: $(VENV)/dev.stamp
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy

# Warnings are errors, a link to a page or heading that is not there among them.
docs: $(VENV)/docs.stamp
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --fresh-env --builder html docs build/docs
	@$(BIN)/python -m pytest --quiet tests/integration/test_docs.py tests/integration/test_docs_reference.py
	@echo "The manual is build/docs/index.html"

# Those that leave the manual, too. Needs the network, so it is no part of the others.
links: $(VENV)/docs.stamp
	@$(BIN)/python -m sphinx --quiet --builder linkcheck docs build/links

spec: $(VENV)/dev.stamp build/spec/stamp
	@$(BIN)/python -m pytest --quiet tests/integration/test_spec.py tests/unit/durability/test_account_machine.py

demo: $(VENV)/demo.stamp
	@$(BIN)/python -m rlm_langchain.cli.demo

clean:
	rm -rf $(VENV) .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/pip
	@echo "Installing rlm_langchain and what it needs into $(VENV) (about a minute) ..."
	@$(PIP) --editable '.[local]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(BIN)/pip
	@echo "Installing rlm_langchain and its development tools into $(VENV) (about two minutes) ..."
	@$(PIP) --editable '.[local,retrieval,agents,mcp,documents,tables,bench]' --group dev
	@touch $@

$(VENV)/docs.stamp: $(VENV)/dev.stamp
	@echo "Installing what builds the manual ..."
	@$(PIP) --group docs
	@touch $@

# What simulates docs/spec. The test of it is skipped where there is no npm.
build/spec/stamp: docs/spec/package.json
	@mkdir -p build/spec
	@cp $< build/spec
	@npm install --prefix build/spec --silent --ignore-scripts --no-package-lock --no-audit --no-fund --fetch-retries=1 --fetch-timeout=20000
	@touch $@

# Debian and Ubuntu leave `ensurepip` out of Python: there the system's pip puts a pip into the environment.
$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "This needs Python 3.11 or newer, and finds none: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV) \
		&& $(PYTHON) -m pip --python $(BIN)/python --quiet install pip; }
	@$(PIP) --upgrade 'pip>=25.1'
