import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.sparsity import complexity
from asvit_jax.sparsity.executions import in_place

ARCH = tiny.arch(depth=4, prune_before=(1, 3))


@pytest.mark.optimized
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_class_tokens_row_of_a_block_is_that_of_the_whole_block(bias, dtype):
  arch = tiny.arch(qkv_bias=bias, residual_divisor=2.0)
  model = vit.model(arch.dense, tiny.params(arch.dense), dtype=jnp.dtype(dtype))
  x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 17, arch.width)), dtype)
  attend = in_place.Pruning.of(arch).dense
  whole, _ = model.blocks[-1](x, attend)
  row = model.blocks[-1].rows(x, x[:, :1], attend)
  tolerance = 1e-5 if dtype == "float32" else 0.05
  np.testing.assert_allclose(
    np.asarray(row[:, 0], np.float32), np.asarray(whole[:, 0], np.float32), atol=tolerance
  )


@pytest.mark.parametrize("execution", ["dense", "masked"])
def test_tokens_say_the_same_as_logits(execution):
  params = tiny.with_thresholds(ARCH, tiny.params(ARCH), tiny.images(ARCH, 4), (0.7, 0.4))
  outputs = tiny.network(ARCH).with_params(params)(tiny.images(ARCH, 4), execution)
  head = params["head"]
  logits = outputs.tokens[:, 0] @ head["kernel"] + head["bias"]
  np.testing.assert_allclose(outputs.logits, logits, atol=2e-5)


def flops(execution, arch):
  def logits(images):
    return execution(vit.model(arch, tiny.params(arch)), images).logits

  compiled = jax.jit(logits).lower(tiny.images(arch, 4)).compile()
  return compiled.cost_analysis()["flops"] / 4  # an image


@pytest.mark.optimized
@pytest.mark.parametrize("execution", [in_place.dense, in_place.masked])
def test_what_nobody_reads_is_not_computed(execution):
  one = tiny.arch(width=192, depth=3, prune_before=(1,))  # so wide that only products count
  two = dataclasses.replace(one, aux_head=True)  # whose patches are all read
  tokens = np.full(one.depth, 1.0 + one.patches)
  spared = complexity.gmacs_of_blocks(one, tokens) - complexity.gmacs_of_blocks(
    one, tokens, real=True
  )
  aux_head = one.patches * one.width * one.classes
  assert flops(execution, two) - flops(execution, one) == pytest.approx(
    2 * (1e9 * spared + aux_head), rel=0.15
  )


def test_real_gmacs_by_hand():
  arch = tiny.arch(depth=3, prune_before=(1, 2), reduction="merge")
  d, m, n, c = arch.width, arch.hidden, arch.patches, arch.width // arch.heads
  stem = n * 8 * 8 * 3 * d
  linear = 4 * d * d + 2 * d * m

  def block(tokens):
    return linear * tokens + 2 * d * tokens**2

  def class_row(tokens):
    return 2 * d * d + 2 * d * m + 2 * d * d * tokens + 2 * d * tokens

  kept = np.array([[9, 4], [16, 16]])
  expected = [
    stem + block(n + 1) + block(a + 1) + class_row(b + 1) + c * ((n + 1) ** 2 + (a + 1) ** 2)
    for a, b in kept
  ]
  np.testing.assert_allclose(1e9 * complexity.real_gmacs(arch, kept), expected, rtol=1e-6)
  dense = stem + 2 * block(n + 1) + class_row(n + 1)
  np.testing.assert_allclose(1e9 * complexity.real_gmacs(arch, kept[:, :0]), [dense] * 2, rtol=1e-6)


def test_a_second_head_needs_the_whole_last_block():
  arch = tiny.arch(depth=3, prune_before=(1,), **tiny.LV)
  tokens = np.full(3, 17.0)
  whole = complexity.gmacs_of_blocks(arch, tokens)
  assert complexity.gmacs_of_blocks(arch, tokens, real=True) == whole
  assert complexity.real_gmacs(arch, np.zeros((1, 0)))[0] == pytest.approx(whole)
