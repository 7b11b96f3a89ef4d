# `make book` is the main job; `make help` lists all.
.DEFAULT_GOAL := book
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SPHINX := $(BIN)/python -m sphinx -W --keep-going -q -b html -d _build/doctrees
PYTEST := $(BIN)/python -m pytest -q
IN_PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
NOTEBOOKS := --nbval --nbval-sanitize-with tests/nbval_sanitize.cfg
QUICK := -p no:nbval -m "not slow and not browser"

$(STAMP): requirements.lock pyproject.toml
	@echo "Setting up $(VENV) (once, about a minute) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: setup
setup: $(STAMP)

.PHONY: book
book: $(STAMP) assets ## build the book (executes notebooks that are out of date)
	@$(BIN)/vswap-ref nb
	@$(SPHINX) . _build/html -c book
	@echo "The book is built: open _build/html/index.html"

.PHONY: assets
assets: ## fetch offline copies of the book's browser assets with npm, if there is one
	@sh book/assets.sh

.PHONY: lab
lab: $(STAMP) ## open JupyterLab at the welcome notebook
	@$(BIN)/jupyter lab notebooks/00-00-welcome.ipynb

.PHONY: test
test: $(STAMP) assets check ## run everything: checks, tests, notebooks, wheel, book, browser
	@$(PYTEST) $(IN_PARALLEL) $(NOTEBOOKS) tests notebooks

.PHONY: test-quick
test-quick: $(STAMP) ## run the tests that take seconds
	@$(PYTEST) $(IN_PARALLEL) $(QUICK) tests

.PHONY: check
check: $(STAMP) ## ruff, mypy --strict, and weave, pair and layer checks
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/vswap-ref check

.PHONY: weave stitch
weave: $(STAMP) ## write vswap_ref/mm from the notebooks
	@$(BIN)/vswap-ref weave
stitch: $(STAMP) ## carry edits in vswap_ref/mm back into the notebooks
	@$(BIN)/vswap-ref stitch

.PHONY: nb
nb: $(STAMP) ## execute notebooks: make nb NB=00-04
	@$(BIN)/vswap-ref nb --force $(NB)

.PHONY: bench
bench: $(STAMP) ## measure, as ratios within one run
	@$(BIN)/python -m benchmarks
	@$(BIN)/vswap-ref real-kernel data/real-kernel/counters.csv
	@$(PYTEST) $(IN_PARALLEL) --deep tests/model tests/stages tests/lab

.PHONY: lock
lock: ## renew requirements.lock (maintainers)
	@$(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --python-version 3.11 --extra test \
	    --no-emit-package vswap-ref -o requirements.lock pyproject.toml

.PHONY: clean
clean: ## remove what was built
	@rm -rf _build dist

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 14
