"""How products are computed: of float32 arrays, as exactly as it was asked for."""

import jax
import jax.numpy as jnp
import pytest

from asvit_jax.core import devices


def lowered():
  x = jax.ShapeDtypeStruct((4, 4), jnp.float32)
  return jax.jit(lambda x: x @ x).lower(x).as_text()


def test_a_precision_is_that_of_the_programs_compiled_in_it():
  plain = lowered()
  with devices.precision("default"):
    assert lowered() == plain
  assert "HIGHEST" not in plain
  for name in ("high", "highest"):
    with devices.precision(name):
      assert f"precision = [{name.upper()}, {name.upper()}]" in lowered()
  with devices.exact():
    assert "HIGHEST" in lowered()
    assert jnp.zeros(1).device.platform == "cpu"
  assert lowered() == plain


def test_every_precision_of_the_config_is_one_of_jax():
  for name in devices.PRECISIONS:
    with devices.precision(name):
      pass
  with pytest.raises(ValueError, match="tf33"), devices.precision("tf33"):
    pass
