# make quickstart   sets up, trains a dense and a pruned model on the embedded data, draws them
# make test         sets up, checks style, runs the tests
# make test-all     the tests that `make test` leaves out: many processes, much repetition, and what
#                   needs PyTorch, TensorFlow or ONNX, which it installs (gigabytes) in .venv-all

PYTHON ?= python3
BIN := .venv/bin
ALL := .venv-all/bin
PYTEST := python -m pytest -n 2 --dist worksteal

.PHONY: quickstart test test-all format clean

quickstart: .venv/run
	$(BIN)/python -m asvit_jax.quickstart

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/$(PYTEST) -m "not (optimized or slow or external)"
	OPTIMIZED=1 $(BIN)/$(PYTEST) -m "optimized and not (slow or external)"

test-all: .venv-all/dev
	$(ALL)/$(PYTEST) -m "(slow or external) and not optimized"
	OPTIMIZED=1 $(ALL)/$(PYTEST) -m "(slow or external) and optimized"

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The stamps are written last, so an interrupted installation starts again.
.venv/run: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/dev: .venv/run requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

.venv-all/dev: requirements.txt requirements-dev.txt requirements-export.txt requirements-browser.txt
	$(PYTHON) -m venv .venv-all
	$(ALL)/python -m pip install --quiet -r requirements-dev.txt -r requirements-export.txt -r requirements-browser.txt
	touch $@

clean:
	rm -rf .venv .venv-all runs
