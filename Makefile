# What is done often; `make` lists it. Everything runs in .venv (tools/setup_env.sh).
.PHONY: help setup test quick lint format typecheck docs docs-serve all-checks

python := .venv/bin/python
export NO_MKDOCS_2_WARNING := 1

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## install the pinned versions into .venv
	bash tools/setup_env.sh

test: ## all tests, about 15 minutes on two cores
	bash tools/run_tests.sh

quick: ## the quick tests
	bash tools/run_tests.sh --quick

lint: setup ## ruff and codespell
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m codespell_lib

format: setup ## apply ruff's fixes and formatting
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

typecheck: setup ## mypy
	$(python) -m mypy
	for recipe in recipes/*/; do \
		MYPYPATH=$$recipe $(python) -m mypy $$recipe*.py || exit 1; \
	done

docs: setup ## build the site into site/; warnings are errors
	$(python) -m mkdocs build --strict --quiet

docs-serve: setup ## show the site while writing, at localhost:8000
	$(python) -m mkdocs serve

all-checks: ## what CI runs
	bash .ci/run
