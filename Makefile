# make search   set everything up and search on the built-in corpus
# make test     set everything up and run the tests

PYTHON ?= python3
BIN := .venv/bin

search: .venv/.ready
	$(BIN)/python tune_csem.py

test: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not (gpu or ray or ssh)"
	$(BIN)/python -m pytest -n 2 --dist loadgroup --timeout 600 -m "(ray or ssh) and not (gpu or alone)"
	$(BIN)/python -m pytest -n 2 --dist loadfile --timeout 600 -m "alone and not gpu"

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	touch .venv/.ready

.PHONY: search test
