# `make app` serves the dashboard, `make test` runs the tests; both need only Python 3.11+ and make.
# Everything is installed into .venv, once: a second run goes straight to work, also without a network.
# Paths are relative and tools are called as modules, so that a folder with a space in its name does no harm.

PYTHON ?= python3
PORT ?= 8501
ARGS ?=
VENV := .venv
PY := $(VENV)/bin/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help app demo test lint format clean

help:
	@echo "make app     install, prepare the demo once, serve the dashboard on http://localhost:$(PORT) (PORT=...)"
	@echo "make demo    prepare the demo checkpoint only"
	@echo "make test    install the test tools and run the tests (ARGS='-k name' picks some)"
	@echo "make lint    ruff, mypy and the import rules"
	@echo "make format  let ruff rewrite the code"
	@echo "make clean   remove .venv and the caches; runs and models stay"

app: demo
	$(PY) -m streamlit run app.py --server.port $(PORT) --server.showEmailPrompt false

demo: $(VENV)/requirements.installed
	$(PY) -m pgb_core demo

test: $(VENV)/requirements-dev.installed
	$(PY) -m pytest -n logical --dist loadfile $(ARGS)

lint: $(VENV)/requirements-dev.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c "from importlinter.cli import lint_imports_command as run; run()"

format: $(VENV)/requirements-dev.installed
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# The stamps are touched last, so that an interrupted installation is taken up again.
$(VENV)/requirements.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; try: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/requirements-dev.installed: requirements-dev.txt $(VENV)/requirements.installed
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
