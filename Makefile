# make demo PROMPT="..."   on a fresh machine: sets everything up; generates, refines and enlarges into out/
# make test                on a fresh machine: sets everything up, then ruff, mypy and all tests
# make lint | docs | clean
#
# PYTHON is the Python to build the environment with (3.11 or newer), VENV where it is kept.

PYTHON ?= python3
VENV ?= .venv
PROMPT ?= a purple elephant on a bicycle at sunset
BIN = $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

# As it was typed: no character of a prompt means anything to make or to the shell.
export DEMO_PROMPT := $(value PROMPT)

.PHONY: demo test lint docs clean

demo: $(VENV)/.installed
	@$(BIN)/dalle-flow generate -n 9 -o out -- "$$DEMO_PROMPT"
	@$(BIN)/dalle-flow refine -n 9 --strength 0.4 -o out/refined out/00.png
	@$(BIN)/dalle-flow upscale -o out/final.png out/refined/00.png

test: lint
	$(BIN)/pytest -rs

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(VENV)/.installed
	$(BIN)/python -m dalle_flow.cli.reference > docs/cli.md

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find dalle_flow tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV); the first time this takes minutes and downloads torch"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	@echo "installing into $(VENV), with what the tests need"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) -e ".[dev]"
	@touch $(VENV)/.installed $@
