import jax
import jax.numpy as jnp
import pytest

from asvit_jax.core.errors import InputError
from asvit_jax.targets import compiling
from asvit_jax.targets.chips import TPUS


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
