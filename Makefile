# `make run REPO=path` and `make test` are all a newcomer needs; each creates the environment on a fresh machine.
PYTHON ?= python3
REPO   ?= .
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup run redis test test-slow conformance-vllm check fix bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml config/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c config/constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c config/constraints.txt -e '.[dev]'
	touch $@

run: setup
	$(BIN)/codeintel up $(REPO)

test: setup redis
	$(BIN)/python -m pytest -m "not slow and not gpu and not conformance" -n 2

redis:
	@command -v redis-server >/dev/null || timeout 120 apt-get install -y -q redis-server >/dev/null 2>&1 || \
	  echo "redis-server is not here and cannot be installed: the tests of answers shared by workers are skipped."

test-slow: setup
	$(BIN)/python -m pytest -m slow

conformance-vllm: setup
	$(BIN)/python -m pytest -m conformance tests/contract -rs

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
