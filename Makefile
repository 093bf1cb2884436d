# make demo   the whole job on built-in phantom data (about five minutes on two cores, after installation)
# make test   the quick and the slow tests
# make check  what CI checks: format, lint, types, quick tests
# Each makes .venv from requirements.lock by itself; python3 (3.10 to 3.13) and make are all that is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test quick slow check lint lock clean

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e ".[dev,fidelity,cxr]"
	touch $(READY)

demo: $(READY)
	$(BIN)/clinalign demo --out demo

test: lint
	$(BIN)/python -m pytest -q

quick: $(READY)
	$(BIN)/python -m pytest -q -m "not slow"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint quick

lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-emit-index-url \
		--extra dev --extra fidelity --extra cxr -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
