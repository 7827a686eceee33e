# make quickstart   sets up, trains a dense and a pruned model on the embedded data, draws them
# make test         sets up, checks style, runs all tests

PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test format clean

quickstart: .venv/run
	$(BIN)/python -m asvit_jax.quickstart

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist worksteal

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The stamps are written last, so an interrupted installation starts again.
.venv/run: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/dev: .venv/run requirements-dev.txt requirements-export.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv runs
