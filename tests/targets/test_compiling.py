"""What a compiler says of one program, and the largest batch that fits."""

import jax
import jax.numpy as jnp
import pytest

from asvit_jax.core.errors import InputError
from asvit_jax.targets import compiling
from asvit_jax.targets.chips import GPUS, TPUS


class Failing:
  """A program that does not compile."""

  def __init__(self, message):
    self.message = message

  def lower(self, *_):
    """As `jax.jit` has it."""
    raise jax.errors.JaxRuntimeError(self.message)


@pytest.mark.parametrize(
  ("message", "gibibytes"),
  [
    (
      "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
      "(512.00G) exceeds available HBM (15.75G).",
      512,
    ),
    ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 16.5G of 15.75G hbm.", 16.5),
  ],
)
def test_what_does_not_fit_says_how_much_it_would_need(message, gibibytes):
  found = compiling.compile_for(TPUS["v5e"], Failing(message), ())
  assert (found.fits, found.memory) == (False, gibibytes * 2**30)
  assert (found.flops, found.bytes) == (None, None)


@pytest.mark.parametrize("message", ["INTERNAL: no", "RESOURCE_EXHAUSTED: of something else"])
def test_any_other_failure_is_one_error_with_what_the_compiler_said(message):
  with pytest.raises(InputError, match=message):
    compiling.compile_for(TPUS["v5e"], Failing(message), ())


def test_memory_is_arguments_results_and_temporaries():
  shape = jax.ShapeDtypeStruct((256, 256), jnp.float32)
  found = compiling.compile_for(TPUS["v5e"], jax.jit(lambda x: jnp.tanh(x) @ x), (shape,))
  size = 4 * 256**2
  assert found.touched == 2 * size
  assert 2 * size <= found.memory <= 4 * size
  reused = jax.jit(lambda x: x + 1, donate_argnums=0)
  assert compiling.compile_for(TPUS["v5e"], reused, (shape,)).memory < 1.1 * size


def test_the_estimate_is_the_longer_of_computing_and_moving():
  chip = TPUS["v5e"]
  assert compiling.roofline(chip, "bfloat16", 197e12, 819e9 / 2) == {
    "estimated_ms": pytest.approx(1000),
    "bound": "compute",
  }
  assert compiling.roofline(chip, "float32", 197e9, 819e9)["bound"] == "memory"
  alone = compiling.roofline(GPUS["h100"], "float32", 494e12, None)
  assert alone == {"estimated_ms": pytest.approx(1000), "bound": "compute"}


class Memory:
  """Memory of a batch, in bytes, that counts how often it is asked."""

  def __init__(self, memory):
    self.memory, self.asked = memory, []

  def __call__(self, images):
    self.asked.append(images)
    return self.memory(images)


@pytest.mark.parametrize("first", [8, 64, 512, 4096])
@pytest.mark.parametrize("available", [1e4, 1e5, 1e6])
def test_a_linear_memory_is_found_with_two_more_compilations(first, available):
  memory = Memory(lambda images: 5000 + 37 * images)
  found = compiling.largest_batch(memory, available, 8, {first: memory.memory(first)})
  assert found["largest_batch"] == (available - 5000) // 37 // 8 * 8
  assert found["largest_batch_memory_mb"] * 2**20 == memory.memory(found["largest_batch"])
  assert len(memory.asked) <= 2


@pytest.mark.parametrize("bend", [0.5, 0.9, 1.1, 2.0])
def test_what_is_named_was_compiled_and_fits_where_memory_is_not_linear(bend):
  """Short of memory, a memory trades it for time; or it grows faster than it did."""
  memory = Memory(lambda i: 1000 + 10 * min(i, 500) + bend * 10 * max(0, i - 500))
  found = compiling.largest_batch(memory, 11_000, 4, {64: memory.memory(64)})
  assert memory.memory(found["largest_batch"]) <= 11_000
  assert found["largest_batch"] in memory.asked
  assert found["largest_batch"] >= 0.6 * (500 + 5000 / (10 * bend))
  assert len(memory.asked) <= 4


def test_where_nothing_fits_it_says_so():
  memory = Memory(lambda images: 1e6 + images)
  found = compiling.largest_batch(memory, 1e5, 8, {64: memory.memory(64)})
  assert found == {"largest_batch": 0, "largest_batch_memory_mb": None}
  assert len(memory.asked) <= 2


def test_where_only_the_unit_is_known():
  memory = Memory(lambda images: 100 * images)
  found = compiling.largest_batch(memory, 1000, 2, {2: 200})
  assert found["largest_batch"] == 10
