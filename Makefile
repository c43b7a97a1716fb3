# Everything runs in .venv, which is made when it is first needed and again when what is to be installed changes.
# Another interpreter: `make PYTHON=python3.12 test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test coverage lint type format commit-checks

demo: $(INSTALLED)  ## Train on CartPole-v1, evaluate the agent, draw its learning curve
	$(BIN)/sb3-reinforce train --env CartPole-v1 --seed 0 --log-folder logs/demo --verbose 0 --num-threads 1 \
		--eval-freq 2000 --eval-episodes 20 --n-eval-envs 20
	$(BIN)/python benchmarks/demo.py

test: $(INSTALLED)
	$(BIN)/python -m pytest

coverage: $(INSTALLED)
	$(BIN)/python -m pytest --cov=sb3_reinforce --cov-report=term-missing

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(INSTALLED)
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

commit-checks: lint type test

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[zoo,contrib,dev]'
	touch $@
