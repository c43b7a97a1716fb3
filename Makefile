# Everything runs in .venv, which is made when it is first needed and again when what is to be installed changes.
# Another interpreter: `make PYTHON=python3.12 test`.
PYTHON ?= python3
OLDEST_PYTHON ?= python3.10
NEWEST_PYTHON ?= python3.13
TEST_TOOLS := pytest pytest-xdist hypothesis psutil
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test test-slow coverage lint type format commit-checks test-oldest test-newest

# Train on CartPole-v1, evaluate the agent, draw its learning curve.
demo: $(INSTALLED)
	$(BIN)/sb3-reinforce train --env CartPole-v1 --seed 0 --log-folder logs/demo --verbose 0 --num-threads 1 \
		--eval-freq 2000 --eval-episodes 20 --n-eval-envs 20
	$(BIN)/python benchmarks/demo.py

# On all cores.
test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses logical --dist worksteal

# What takes longer than the rest together: packages in a fresh environment, whole sweeps, estimators over longer episodes.
test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

coverage: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses logical --dist worksteal --cov=sb3_reinforce --cov-report=term-missing

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(INSTALLED)
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

commit-checks: lint type test

# The oldest and newest versions that pyproject.toml admits, each in an environment of its own and without the extras.
test-oldest:
	$(OLDEST_PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --editable . $(TEST_TOOLS) \
		stable-baselines3==2.7.0 gymnasium==0.29.1 torch==2.3.0 numpy==1.24.4
	.venv-oldest/bin/python -m pytest --numprocesses logical --dist worksteal

test-newest:
	$(NEWEST_PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --upgrade --editable . $(TEST_TOOLS)
	.venv-newest/bin/python -m pytest --numprocesses logical --dist worksteal

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[zoo,envs,contrib,dev]'
	touch $@
