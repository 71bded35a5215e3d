# Two commands: `make demo` shows the product, `make test` checks it. Both install what is missing first.

PYTHON := .venv/bin/python
DURATION ?=
MINUTES ?= 10
PYTEST := $(PYTHON) -m pytest

.PHONY: help setup setup-dev demo test unit lint bench proto soak soak-page screenshots screenshots-of-lab chaos connectivity fuzz clean

help:
	@echo "make demo [DURATION=seconds]  lab cluster, traffic, flows as they happen, UI on http://localhost:12000"
	@echo "make test                     lint and every test: unit, integration, e2e, browser"
	@echo "make unit                     the tests that need no root, kernel or network"
	@echo "make lint                     ruff and mypy"
	@echo "make bench [TOPICS='a b']     every figure, as JSON"
	@echo "make setup                    install what is missing"
	@echo "make proto                    regenerate the stubs in proto/"
	@echo "make soak                     ten million flows through the relay, nothing lost or reordered"
	@echo "make soak-page [MINUTES=10]   an open page at 10,000 flows/s: memory of page and server stay flat"
	@echo "make chaos                    agents killed a hundred times in the middle of changes, under traffic"
	@echo "make screenshots              take the pictures of docs/screenshots anew"
	@echo "make screenshots-of-lab       those with real traffic, of the lab that is up"
	@echo "make connectivity             the whole connectivity test, on a lab of its own"
	@echo "make fuzz [MINUTES=10]        every property test again and again with fresh input"
	@echo "make clean                    take the lab down and remove what was built"

setup:
	@scripts/setup.sh run

setup-dev:
	@scripts/setup.sh dev

demo: setup
	@.venv/bin/flowscope lab demo $(if $(DURATION),--duration $(DURATION))

test: lint
	$(PYTEST)

unit: setup-dev
	$(PYTEST) tests/unit

lint: setup-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy .

bench: setup-dev
	@$(PYTHON) -m tests.bench $(TOPICS)

proto: setup-dev
	PYTHON=$(abspath $(PYTHON)) sh proto/generate.sh

soak: setup-dev
	$(PYTEST) -m slow -k soak

# Ten minutes unless told otherwise; the figure in docs/dashboard.md is of MINUTES=30.
soak-page: setup-dev
	$(PYTHON) -m tests.support.page_soak --minutes $(MINUTES)

chaos: setup-dev
	$(PYTEST) -m slow -k chaos

screenshots: setup-dev
	$(PYTHON) -m tests.support.screenshots

screenshots-of-lab: setup-dev
	$(PYTHON) -m tests.support.lab_screenshots

connectivity: setup-dev
	$(PYTEST) -m slow -s -k the_whole_of_connectivity

# Every property test again and again with fresh random input; stops at the first failure.
fuzz: setup-dev
	@end=$$(( $$(date +%s) + 60 * $(MINUTES) )); \
	while [ $$(date +%s) -lt $$end ]; do $(PYTEST) -x -m "hypothesis and not slow" tests/unit || exit 1; done

clean:
	-@test ! -x .venv/bin/flowscope || test "$$(id -u)" != 0 || .venv/bin/flowscope lab down
	rm -rf .venv build dist bpf/build mesh/envoy/module/build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
