# make quickstart   sets up, trains a dense and a pruned model on the embedded data, draws them
# make test         sets up, checks style, runs the tests
# make test-all     the tests that `make test` leaves out: many processes, much repetition, what runs
#                   with XLA's optimisations as users run it, and what needs PyTorch, TensorFlow, ONNX
#                   or an object store, which it installs (gigabytes) in .venv-all
# make measure-accelerator  measures the device that is here in ten minutes; with QUICK=1 it tries
#                   everything in two minutes, also on a CPU
# make check-targets  compiles steps, evaluation and packed inference for TPUs and GPUs that are not
#                   here: hours on two cores; interrupted, it goes on

PYTHON ?= python3
BIN := .venv/bin
ALL := .venv-all/bin
TARGET := .venv-target/bin
PYTEST := python -m pytest -n 2 --dist worksteal

.PHONY: quickstart test test-all measure-accelerator check-targets format clean

quickstart: .venv/run
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m asvit_jax.quickstart

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/$(PYTEST) -m "not (slow or external)"

test-all: .venv-all/dev
	$(ALL)/$(PYTEST) -m "(slow or external) and not optimized"
	OPTIMIZED=1 $(ALL)/$(PYTEST) -m optimized

# Install the device's JAX into .venv before, as docs/tpu.md and docs/gpu.md say.
measure-accelerator: .venv/run
	$(BIN)/python -m asvit_jax.measure $(if $(QUICK),--quick)

check-targets: .venv-target/run
	$(TARGET)/python -m asvit_jax.targets.check

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The stamps are written last, so an interrupted installation starts again. pip would compile 9,000
# files to bytecode, one after the other; the quickstart imports a third, and compiles these itself.
.venv/run: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	touch $@

# Tests start many processes at once, which would all compile what they import: on all cores, once.
.venv/dev: .venv/run
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[dev]"
	$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	touch $@

.venv-all/dev: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-all
	$(ALL)/python -m pip install --quiet --no-compile --editable ".[test-all]"
	$(ALL)/python -m compileall -qq -j 0 .venv-all/lib || true
	touch $@

.venv-target/run: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-target
	$(TARGET)/python -m pip install --quiet --editable ".[target]"
	touch $@

clean:
	rm -rf .venv .venv-all .venv-target runs
