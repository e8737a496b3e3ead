# Livery. `make help` lists what there is. Needs Python 3.11 with its venv module; everything else is set up in .venv.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
VENV := .venv
BIN := $(VENV)/bin
NODE := PATH="$(CURDIR)/$(BIN):$$PATH"

# The machine's own list of certificate authorities, where it has one: a company's proxy is known there and nowhere else.
AUTHORITIES := $(wildcard /etc/ssl/certs/ca-certificates.crt)
ifneq ($(AUTHORITIES),)
export UV_SYSTEM_CERTS ?= 1
export NODE_EXTRA_CA_CERTS ?= $(AUTHORITIES)
endif

# Any Python that is new enough and can make a virtual environment.
PYTHON ?= $(shell for p in python3.11 python3 /usr/bin/python3 python3.12 python3.13 python3.14; do \
  command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

# Two stamps, named by the hash of what they were made from: nothing changed, nothing done.
PACKAGES := requirements.lock uv-bootstrap.txt package-lock.json pyproject.toml
PACKAGES_STAMP := $(VENV)/.packages-$(shell cat $(PACKAGES) 2>/dev/null | sha256sum | cut -c1-16)
FRONT_END = find themes app -path themes/static/dist -prune -o -type f \( -name '*.html' -o -name '*.css' -o -name '*.js' -o -name '*.mjs' -o -name '*.svg' \) -print
FRONT_END_STAMP := themes/static/dist/.built-$(shell { $(FRONT_END); echo package-lock.json; } 2>/dev/null | LC_ALL=C sort | xargs cat 2>/dev/null | sha256sum | cut -c1-16)

.PHONY: help setup run test check lint format proof bench pictures lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(PACKAGES_STAMP) $(FRONT_END_STAMP) ## .venv with everything; does nothing when nothing changed

$(PACKAGES_STAMP):
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer with its venv module is needed: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "setup: virtual environment ($(PYTHON))"; "$(PYTHON)" -m venv --clear $(VENV); }
	@echo "setup: uv, by its hash"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r uv-bootstrap.txt
	@echo "setup: Python packages, by requirements.lock"
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --editable .
	@echo "setup: front-end packages, by package-lock.json"
	@$(NODE) npm ci --ignore-scripts --no-fund --no-audit --loglevel=error --no-progress >/dev/null
	@rm -f $(VENV)/.packages-*
	@touch $@

$(FRONT_END_STAMP): $(PACKAGES_STAMP)
	@echo "setup: front end"
	@$(NODE) npm run --silent build || { echo "error: the front end could not be built; its message stands above" >&2; exit 1; }
	@mkdir -p $(@D) && rm -f $(@D)/.built-* && touch $@

run: setup ## Everything with the demo on http://localhost:8000; Ctrl-C stops it
	@exec $(BIN)/livery up --demo

test: setup ## The whole test suite (long proofs by a seeded tenth)
	@$(NODE) $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup ## ruff, pyright and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(NODE) node_modules/.bin/pyright
	@$(BIN)/lint-imports

check: lint ## What CI runs: lint, types, import contracts, front-end build, tests
	@$(NODE) npm ci --ignore-scripts --no-fund --no-audit --loglevel=error --no-progress >/dev/null
	@$(NODE) npm run --silent build
	@$(MAKE) --no-print-directory test

format: setup ## Formats the code and mends what ruff can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

proof: setup ## The long proofs in full; writes proof/*.json with counts, seeds, survivors
	@mkdir -p proof
	@LIVERY_PROOF=full $(NODE) $(BIN)/pytest -m proof $(ARGS)

bench: setup ## Ratios in interleaved runs; writes bench/out/*.json
	@mkdir -p bench/out
	@$(BIN)/python -m bench $(ARGS)

pictures: setup ## Every page x brand x mode x width into pictures/, with a contact sheet
	@$(BIN)/python -m tests.pictures $(ARGS)

lock: setup ## Newest versions that constraints.txt and package.json allow, with hashes
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade \
	  --custom-compile-command "make lock" \
	  --extra otel --extra dev -c constraints.txt pyproject.toml -o requirements.lock
	@echo "uv==$$($(BIN)/uv --version | cut -d' ' -f2)" | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" - -o uv-bootstrap.txt
	@$(NODE) npm install --package-lock-only --ignore-scripts --no-fund --no-audit --loglevel=error

clean: ## Removes what `make setup` made (never your data)
	@rm -rf $(VENV) node_modules themes/static/dist .pytest_cache .ruff_cache .import_linter_cache
