# make play: a dream in your browser.  make test: the tests.  Both make the virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NAME ?= nextframe.doom
PORT ?= 8000

# With an NVIDIA card the default build of PyTorch is right; without one, the newest release that has a CPU build here.
TORCH ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo 'torch>=2.11,<2.14' || echo 'torch==2.13.0')

.PHONY: play test check lint format weights clean

play: $(VENV)/.installed
	$(BIN)/dreamwalk play $(NAME) --port $(PORT)

test: $(VENV)/.developed
	$(BIN)/python -m pytest

check: lint test

lint: $(VENV)/.developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.developed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet '$(TORCH)'
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.developed: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# Everything that the shipped weights come from, in order; a GPU is used when there is one.
weights: $(VENV)/.installed
	$(BIN)/dreamwalk collect doom --level home --split train --frames 40000 --out data/home-train --workers 2
	$(BIN)/dreamwalk collect doom --level home --split test --frames 6000 --out data/home-test --workers 2
	$(BIN)/dreamwalk train autoencode.doom --data data/home-train
	$(BIN)/dreamwalk train nextframe.doom --data data/home-train --codec runs/autoencode.doom
	$(BIN)/dreamwalk train inverse.doom --data data/home-train
	$(BIN)/dreamwalk evaluate runs/nextframe.doom --data data/home-test --examiner runs/inverse.doom
	for name in autoencode inverse nextframe; do \
	  $(BIN)/python -m dreamwalk.training.ship runs/$$name.doom --out dreamwalk/pretrained/$$name.doom.safetensors; done

clean:
	rm -rf $(VENV) build dist *.egg-info
