# make demo    install into .venv and run Case 2; says where its charts are
# make test    install what the tests need (the CPU build of vLLM too) and run all of them
# make figures every case of the MI300X article and its introduction, simulated, then one article of them all
# make faults  the fault matrix alone; writes what was seen to docs/faults.md
# make check   format, lint, types: the quick part
# make docs    the documents as a site, into build/site
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
VLLM   := .venv-vllm

CASES  := intro_405b intro_70b case1_chunked_prefill case2_sched_steps case3_prefix_caching case4_capture_len \
          case5_amd_env case6_kv_cache_dtype case7_tensor_parallel case8_max_num_seqs quick_start \
          tgi_vs_vllm_short tgi_vs_vllm_long tgi_vs_vllm_single tgi_vs_vllm_rps

.PHONY: demo figures test faults check docs install install-dev clean
.DEFAULT_GOAL := demo

demo: install
	$(BIN)/python -m sweeper +experiment=case2_sched_steps

figures: install
	for case in $(CASES); do \
	  $(BIN)/python -m sweeper +experiment=$$case platform=simulated executor=inline || exit 1; \
	done
	$(BIN)/python -m analysis blog outputs/article $(CASES:%=outputs/%-simulated)

# The quick ones in several processes, a file in one; then those that start Ray, the real vLLM or many processes,
# one at a time. Both parts run whatever the first found. A process of tests that dies ends the first part and is
# named: where another takes its place, pytest-xdist 3 waits for ever.
TOGETHER := not vllm and not ray and not slow and not locust
WORKERS  ?= $(shell n=$$(nproc); echo $$((n > 8 ? 8 : n)))

test: install-dev $(VLLM)/.installed check
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --max-worker-restart=0 --durations=15 -m "$(TOGETHER)"; together=$$?; \
	$(BIN)/python -m pytest --durations=15 -m "not ($(TOGETHER))" && exit $$together

faults: install-dev
	FAULTS_TABLE=docs/faults.md $(BIN)/python -m pytest tests/faults

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: install
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python docs/build_site.py build/site

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
