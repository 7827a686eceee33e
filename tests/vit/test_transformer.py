import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.vit.layers import gelu


def test_initial_thresholds_are_thousandths():
  np.testing.assert_allclose(vit.initial_thresholds(3), [0.001, 0.002, 0.003], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_heads_compute_in_float32_whatever_the_compute_type(dtype):
  arch = tiny.arch(**tiny.LV)
  params = tiny.params(arch)
  model = vit.model(arch, params, dtype=dtype)
  tokens = jnp.asarray(np.random.default_rng(0).standard_normal((2, 9, arch.width)), dtype)
  x = np.asarray(tokens, np.float64)
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + arch.norm_epsilon)
  x = x * params["norm"]["scale"] + params["norm"]["bias"]
  for classify, head in ((model.classify, "head"), (model.classify_patches, "aux_head")):
    logits = classify(tokens)
    if head == "head":
      logits = jnp.stack([classify(tokens[:, i:]) for i in range(tokens.shape[1])], axis=1)
    assert logits.dtype == jnp.float32
    expected = x @ np.asarray(params[head]["kernel"], np.float64) + params[head]["bias"]
    np.testing.assert_allclose(logits, expected, atol=2e-5)  # bfloat16's rounding is a hundredth
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_gelu_is_exact_in_both_types():
  x = np.linspace(-12, 12, 6001)
  wide, narrow = x.astype(np.float32), jnp.asarray(x, jnp.bfloat16)
  np.testing.assert_allclose(gelu(jnp.asarray(wide)), exact_gelu(wide), rtol=3e-6, atol=1e-7)
  expected = exact_gelu(np.asarray(narrow, np.float64))
  assert gelu(narrow).dtype == jnp.bfloat16
  half_a_place = 2.0**-8
  np.testing.assert_allclose(
    np.asarray(gelu(narrow), np.float64), expected, rtol=half_a_place, atol=1e-6
  )


def exact_gelu(x):
  return np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.astype(np.float64)])
