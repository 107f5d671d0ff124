# Everything runs from a virtual environment of its own under .venv; the machine is left as it is.
# The first run of a target sets up what it needs; later runs start at once.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin

# The environment is this folder's, whatever other one is active; uv takes the Python that made it and fetches none.
# What is compiled is kept, here as on users' machines: a daemon otherwise takes twice as long to start, and the tests start hundreds.
unexport VIRTUAL_ENV UV_PROJECT UV_WORKING_DIRECTORY PYTHONDONTWRITEBYTECODE
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/$(VENV)
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# --inexact: `demo` and `test` share the environment and neither takes away what the other put there.
SYNC := $(BIN)/uv sync --quiet --frozen --inexact --python $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help demo test peers lint format types imports check bench soak docs packages clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(VENV)/.demo  ## a message in by SMTP and out at an embedded SES stand-in (ARGS=--once: end there)
	@$(BIN)/sesrelay demo $(ARGS)

test: $(VENV)/.dev peers  ## all tests (ARGS='tests/unit -k routing': some)
	@$(BIN)/pytest -n auto --dist worksteal $(ARGS)

peers:  ## unpack the programs that tests talk to under .cache/peers; needs no root
	@$(PYTHON) tests/fetch_peers.py

lint: $(VENV)/.dev  ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(VENV)/.dev  ## mypy --strict
	@$(BIN)/mypy

imports: $(VENV)/.dev  ## who may import whom
	@$(BIN)/lint-imports --no-cache

# Each has its say before the first complaint ends it: `make -k check` runs all.
check: lint types imports  ## lint, types and imports

bench: $(VENV)/.dev peers  ## our figures beside Postfix's (ARGS='--rounds 5 --cases 10')
	@$(BIN)/python -c 'import sys; print("measured on Python", sys.version.split()[0], "of", sys.base_prefix)'
	@$(BIN)/python benchmarks/idle.py
	@$(BIN)/python benchmarks/sendmail.py
	@$(BIN)/python benchmarks/accept.py $(ARGS)
	@$(BIN)/python benchmarks/fairness.py
	@$(BIN)/python benchmarks/priority.py
	@$(BIN)/python benchmarks/large.py
	@$(BIN)/python benchmarks/queue.py
	@$(BIN)/python benchmarks/drain.py
	@$(BIN)/python benchmarks/ses.py

soak: $(VENV)/.dev  ## hours of kills and faults under load (ARGS='--kills 200 --minutes 5')
	@$(BIN)/python benchmarks/soak.py $(ARGS)

docs: $(VENV)/.dev  ## HTML under build/html and man pages under build/man, from docs/
	@$(BIN)/sphinx-build -q -E -W -b html docs build/html
	@$(BIN)/sphinx-build -q -E -W -b man docs build/man

packages: $(VENV)/.dev  ## the Debian packages, under dist/, for the Python of this distribution
	@$(BIN)/python packaging/deb/build.py $(ARGS)

clean:  ## remove the environment and all that was fetched or made
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "sesrelay wants Python 3.11 or newer, and '$(PYTHON)' is not one; name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "'$(PYTHON)' has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV) (once)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet 'uv>=0.8,<1'

$(VENV)/.demo: pyproject.toml uv.lock | $(BIN)/uv
	@$(SYNC) --no-dev
	@touch $@

$(VENV)/.dev: pyproject.toml uv.lock | $(BIN)/uv
	@$(SYNC) --group dev
	@touch $@ $(VENV)/.demo
