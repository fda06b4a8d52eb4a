# Everything between a clone and a running Gatehouse. `make run` as root needs nothing done by hand before it.

SYSTEM_PYTHON := $(firstword $(wildcard /usr/bin/python3) python3)
PREPARE := $(SYSTEM_PYTHON) deploy/prepare.py
PYTHON := .venv/bin/python
# What fails is tried once more, and -rR names it: passed the second time, it depends on the machine's load.
PYTEST := env PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/pytest -q --reruns 1 -rR
# Beside a PostgreSQL and a Redis of their own: what touches the database runs on the embedded set and on these.
ON_SERVERS := $(PYTHON) -m tests.servers
HOME_DIR := $(or $(GATEHOUSE_HOME),$(CURDIR)/var)
# Prepared once, then shared by all test runs of this checkout.
TEST_HOME := $(CURDIR)/var

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help run setup test lint soak bench venv guest packages template stacks-embedded stacks-servers

help: ## Show this list.
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

run: setup ## Set up what is missing, then start everything and keep it running.
	@exec $(PYTHON) manage.py up

setup: ## Install what is missing, build agent and template, create the first tenant and key.
	@$(PREPARE) root packages venv guest
	@$(PYTHON) -m sandboxes.node.builds base --home "$(HOME_DIR)" >/dev/null
	@$(PYTHON) manage.py bootstrap

venv: ## Make .venv and install requirements.txt.
	@$(PREPARE) packages venv

packages: ## Install the Debian packages that are missing.
	@$(PREPARE) packages

guest: ## Build the guest agent.
	@$(PREPARE) packages venv guest

template: guest ## Build the template `base`.
	@$(PYTHON) -m sandboxes.node.builds base --home "$(TEST_HOME)" >/dev/null

lint: venv ## Check style, types and import directions.
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy .
	@.venv/bin/lint-imports

test: template lint ## Run every check and every test.
	@$(PREPARE) test-packages
	@$(PREPARE) go-tests older-sdk javascript
	@$(PYTEST) -n 2 --dist loadfile -m "not stack and not soak"
	@$(ON_SERVERS) $(PYTEST) -n 2 --dist loadfile -m "database and not stack and not soak"
	@$(MAKE) --jobs=2 --output-sync=target stacks-embedded stacks-servers
	@$(PYTEST) -m "stack and not soak" tests/chaos
	@$(ON_SERVERS) $(PYTEST) -m "stack and not soak" tests/chaos

# Complete installations. The two sets share nothing, so they run side by side; who kills services wants to be alone.
stacks-embedded:
	@$(PYTEST) -m "stack and not soak" --ignore tests/chaos

stacks-servers:
	@$(ON_SERVERS) $(PYTEST) -m "stack and database and not soak" --ignore tests/chaos

soak: template ## Run the tests that take many minutes.
	@$(PREPARE) javascript
	@$(PYTEST) -m soak

bench: template ## Measure, print the table and write var/bench.json.
	@$(PREPARE) bench-packages
	@$(PYTHON) -m tests.bench.run
