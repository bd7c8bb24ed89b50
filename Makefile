# `make` or `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup serve test quick lint types check bench

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install everything that tests and checks need
	.ci/setup

serve: setup ## serve the directory data at http://127.0.0.1:5984/
	.venv/bin/couchlite serve --data-dir data

test: setup ## run all tests
	.venv/bin/pytest -n auto

quick: setup ## run the tests that take no outside program and no minutes
	.venv/bin/pytest -n auto -m "not slow"

lint: setup ## format the code and look for mistakes
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

types: setup ## check the types
	.venv/bin/mypy

check: ## what has to pass before a change goes in
	.ci/run

bench: setup ## measure, side by side with other servers if BENCH="--against NAME=URL"
	.venv/bin/python -m benchmarks $(BENCH)
