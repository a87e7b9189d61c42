# Everything a fresh machine needs is python3 (3.11 to 3.13) with pip and venv, make, and a package registry.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

SWEEP ?= --algo-and-network-config ppo_mlp --env-config gymnax.cartpole \
	--num-samples 64 --num-seeds 2 --run-length-modifier 50000 --output-root results/sweep
TESTS ?=
LEARN ?=
PEER_VENV ?= .venv-rejax
BENCH ?= --peer-python $(PEER_VENV)/bin/python
CIRCUITS_VENV ?= .venv-circuits
BENCH_QUANTUM ?= --peer-python $(CIRCUITS_VENV)/bin/python
SB3_VENV ?= .venv-sb3
BENCH_SEARCH ?= --rejax-python $(PEER_VENV)/bin/python --sb3-python $(SB3_VENV)/bin/python
CHAOS ?=

CORE := $(VENV)/.installed-core
DEV := $(VENV)/.installed-dev
PEER := $(PEER_VENV)/.installed
CIRCUITS := $(CIRCUITS_VENV)/.installed
SB3 := $(SB3_VENV)/.installed
KERNEL := hatch_build.py $(wildcard hyperlax/quantum/kernel/*)

unexport PYTHONDONTWRITEBYTECODE # without bytecode, every process compiles the sources of all that it imports

.DEFAULT_GOAL := help
.PHONY: help venv sweep test lint format learn bench bench-quantum bench-search chaos clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "variables: PYTHON=$(PYTHON) VENV=$(VENV) JOBS=$(JOBS), and arguments in SWEEP, TESTS, LEARN, BENCH, BENCH_QUANTUM," \
		"BENCH_SEARCH, CHAOS"

venv: $(DEV) ## create .venv with everything for development

sweep: $(CORE) ## train 64 mixed configurations of CartPole; prints a table and the path of a picture
	$(BIN)/hyperlax sweep-hp-samples $(SWEEP)

test: $(DEV) ## run the tests (TESTS="-m slow" for the slow ones, TESTS=tests/cli for a part)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS) # a file makes what its tests share once

lint: $(DEV) ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV) ## format the code and sort its imports
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

learn: $(DEV) ## train the tuned defaults on fresh seeds and compare with the published returns
	$(BIN)/python benchmarks/learn.py $(LEARN)

bench: $(DEV) $(PEER) ## measure speed against rejax, which gets an environment of its own
	$(BIN)/python benchmarks/speed.py $(BENCH)

bench-quantum: $(DEV) $(CIRCUITS) ## measure circuit simulation against PennyLane and TensorCircuit-ng
	$(BIN)/python benchmarks/circuits.py $(BENCH_QUANTUM)

bench-search: $(DEV) $(PEER) $(SB3) ## measure what searches and populations find, and how busy lanes are
	$(BIN)/python benchmarks/utilisation.py
	$(BIN)/python benchmarks/storages.py
	$(BIN)/python benchmarks/population.py
	$(BIN)/python benchmarks/search_pays.py $(BENCH_SEARCH)

chaos: $(DEV) ## kill runs at random instants, resume them and compare with an undisturbed run
	$(BIN)/python benchmarks/chaos.py $(CHAOS)

clean: ## remove environments, caches and builds; results stay
	rm -rf $(VENV) $(PEER_VENV) $(CIRCUITS_VENV) $(SB3_VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps depend on pyproject.toml, so that a second call does nothing and a new dependency is installed, and on the
# sources of the kernel, which the installation compiles.
$(CORE): pyproject.toml envs/install.py $(KERNEL)
	$(PYTHON) envs/install.py $(VENV) -e .
	@touch $@

$(DEV): pyproject.toml envs/install.py $(KERNEL)
	$(PYTHON) envs/install.py $(VENV) -e '.[dev]'
	@touch $(CORE) $@

# The same JAX on both sides, so that what is compared is the libraries.
$(PEER): $(DEV) Makefile
	$(PYTHON) envs/install.py $(PEER_VENV) rejax==0.1.3 gymnax==0.0.9 six optuna==5.0.0 \
		"jax==$$($(BIN)/python -c 'import importlib.metadata as m; print(m.version("jax"))')"
	@touch $@

$(SB3): $(DEV) Makefile
	$(PYTHON) envs/install.py $(SB3_VENV) stable-baselines3==2.9.2 optuna==5.0.0
	@touch $@

$(CIRCUITS): $(DEV) Makefile
	$(PYTHON) envs/install.py $(CIRCUITS_VENV) pennylane==0.45.1 tensorcircuit-ng==1.10.0 \
		"jax==$$($(BIN)/python -c 'import importlib.metadata as m; print(m.version("jax"))')"
	@touch $@
