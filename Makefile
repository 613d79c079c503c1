# make demo    install into .venv and run Case 2; says where its charts are
# make test    install what the tests need (the CPU build of vLLM too) and run all of them
# make check   format, lint, types: the quick part
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
VLLM   := .venv-vllm

.PHONY: demo test check install install-dev clean
.DEFAULT_GOAL := demo

demo: install
	$(BIN)/python -m sweeper +experiment=case2_sched_steps

test: install-dev $(VLLM)/.installed check
	$(BIN)/python -m pytest

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

$(VLLM)/.installed: $(VENV)/.installed-dev
	$(BIN)/python -m sweeper cpu-vllm --into $(VLLM)
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM) .mypy_cache .ruff_cache .pytest_cache
