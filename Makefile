# make run: set up what is needed and run the main job on the embedded sample. make test: the same, then the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= demo
PROFILE ?= demo
LAB_ARGS ?=
LAB_IP ?= 127.0.0.1

.PHONY: setup run test lab bench clean

setup: $(VENV)/.ready

# torch comes first and pinned: an open range may bring gigabytes of another build
$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "setting up $(VENV)/: about five minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

run: setup
	$(BIN)/ultralink-nb run $(PROFILE) --run $(RUN)

test: setup
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

# Opens the first notebook. Jupyter makes a new token for each start; the browser's link holds it. jupyter/labconfig/ turns off
# JupyterLab's question about news, and with it any request to a web site; a setting of your own still goes before it.
lab: setup
	JUPYTER_CONFIG_PATH="$(CURDIR)/jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" \
	$(BIN)/jupyter lab --ip=$(LAB_IP) --ServerApp.root_dir=. $(LAB_ARGS) $(firstword $(sort $(wildcard notebooks/*.ipynb)))

# DATA: a folder of labelled sets, see benchmarks/fit_calibration.py
bench: setup
	@test -n "$(DATA)" || { echo "name the folder of labelled sets: make bench DATA=folder"; exit 2; }
	$(BIN)/python benchmarks/fit_calibration.py $(DATA)

# Runs, figures and build products go; the ledger of completions and the cache of embeddings in .cache/ stay.
clean:
	find papermill_runs figures -mindepth 1 -maxdepth 1 ! -name .gitkeep ! -name reference -exec rm -rf {} +
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	rm -rf build *.egg-info .pytest_cache .ruff_cache .hypothesis
