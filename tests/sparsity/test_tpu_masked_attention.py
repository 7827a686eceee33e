"""Attention of training steps by kernels, interpreted, equals XLA's, and so do all gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asvit_jax.sparsity import step_kernels
from asvit_jax.sparsity.attentions import softmax

HEAD = 64


def drawn(b=3, n=20, heads=3, seed=0):
  """Queries, keys, values and the gradient of the context, (b, n, h, 64); a mask and a bias.

  In the first image no token sees another one.
  """
  rng = np.random.default_rng(seed)
  arrays = rng.standard_normal((4, b, n, heads, HEAD)).astype(np.float32)
  keep = (rng.random((b, n)) > 0.4).astype(np.float32)
  keep[:, 0] = 1.0
  keep[0] = 0.0
  bias = np.log(rng.integers(1, 5, (b, n))).astype(np.float32)
  return arrays[0] * 2, *arrays[1:], keep, bias


@functools.partial(jax.jit, static_argnums=(0, 1))
def gradients(attention, received, q, k, v, keep, bias, gradient, of_class=None):
  """The context, the attention of the class token, and the gradients of all that is given."""

  def run(q, k, v, keep, bias):
    if keep is None:
      return attention.dense(q, k, v, bias, received)
    return attention.masked(q, k, v, keep, bias, received)

  with step_kernels.interpreted():
    found, back = jax.vjp(run, q, k, v, keep, bias)
  of_class = jnp.zeros_like(found[1]) if of_class is None else of_class
  gradient = gradient.astype(found[0].dtype)
  return [*found, *(a for a in back((gradient, of_class)) if a is not None)]


def assert_equal(ours, theirs, tolerance=2e-5):
  assert len(ours) == len(theirs)
  for a, b in zip(ours, theirs, strict=True):
    assert a.dtype == b.dtype
    scale = np.abs(b).max()
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


def compare(q, k, v, gradient, keep, bias, received=False, of_class=None):
  arrays = (q, k, v, keep, bias, gradient, of_class)
  ours, theirs = (
    gradients(attention, received, *arrays) for attention in (step_kernels.softmax, softmax)
  )
  assert_equal(ours, theirs)
  return ours


@pytest.mark.parametrize(
  ("masked", "biased", "heads"),
  [(True, False, 3), (True, True, 2), (False, False, 2), (False, True, 1)],
)
def test_it_equals_softmax(masked, biased, heads):
  *arrays, keep, bias = drawn(heads=heads)
  compare(*arrays, keep if masked else None, bias if biased else None)


def test_a_mask_may_have_any_value_up_to_1():
  *arrays, keep, bias = drawn(heads=2)
  soft = np.random.default_rng(1).random(keep.shape).astype(np.float32)
  compare(*arrays, keep * soft, bias)


def test_hidden_keys_that_dominate_change_the_gradient_of_the_mask_alone():
  q, k, v, gradient, keep, _ = drawn(heads=2)
  q[..., 0], k[..., 0] = 20.0, np.where(keep > 0, 0.0, 20.0)[..., None]  # 50 more logits
  gradient *= keep[..., None, None]  # nobody reads what hidden tokens see
  found = compare(q, k, v, gradient, keep, None)
  assert all(np.isfinite(a).all() for a in found)
  hidden = (keep == 0) & (keep.sum(axis=1, keepdims=True) > 0)
  to_keep = np.asarray(found[-1])
  assert np.abs(to_keep[hidden]).max() > 10 * np.abs(to_keep[keep > 0]).max()
  to_keys = np.asarray(found[3])
  assert np.abs(to_keys[hidden]).max() < 1e-5 * np.abs(to_keys).max()


def test_all_keys_share_epsilon():
  q, k, v, gradient, keep, _ = drawn(heads=2)
  v[keep == 0] = 1e5
  gradient *= keep[..., None, None]
  ours, theirs = (
    gradients(attention, False, q, k, v, keep, None, gradient)
    for attention in (step_kernels.softmax, softmax)
  )
  context, expected = (np.asarray(found[0])[keep > 0] for found in (ours, theirs))
  np.testing.assert_allclose(context, expected, atol=1e-4)
  assert np.abs(expected).max() > 0.04  # 1e5 · ε · the share of hidden tokens
  hidden = (keep == 0) & (keep.sum(axis=1, keepdims=True) > 0)
  to_values, expected = (np.asarray(found[4])[hidden] for found in (ours, theirs))
  assert 0 < np.abs(expected).max() < 1e-5
  np.testing.assert_allclose(to_values, expected, rtol=1e-3, atol=1e-11)


def test_epsilon_counts_in_the_total():
  """Which is as small as the mask of the keys that dominate."""
  q, k, v, gradient, keep, _ = drawn(heads=2)
  soft = np.where(keep > 0, 1.0, 1e-6).astype(np.float32)
  q[..., 0], k[..., 0] = 20.0, np.where(keep > 0, 0.0, 20.0)[..., None]
  compare(q, k, v, gradient, soft, None)


def test_the_tokens_of_224_pixels():
  *arrays, keep, bias = drawn(b=2, n=197, heads=1)
  keep[0, ::2] = 1.0
  compare(*arrays, keep, bias)


def test_bfloat16_is_as_near_to_float32_as_by_xla():
  *arrays, keep, bias = drawn()
  exact = gradients(softmax, False, *arrays[:3], keep, bias, arrays[3])
  q, k, v, gradient = (jnp.asarray(a, jnp.bfloat16) for a in arrays)

  def errors(attention):
    found = gradients(attention, False, q, k, v, keep, bias, gradient)
    assert [a.dtype for a in found[2:5]] == 3 * [jnp.bfloat16]
    pairs = zip(found, exact, strict=True)
    return [np.linalg.norm(np.float32(a) - b) / np.linalg.norm(b) for a, b in pairs]

  ours, theirs = errors(step_kernels.softmax), errors(softmax)
  assert all(a < 1.2 * b + 1e-6 for a, b in zip(ours, theirs, strict=True)), (ours, theirs)
  assert max(ours) < 0.02


@pytest.mark.parametrize("received", [False, True])
def test_what_stages_read_is_softmaxs_own(received):
  *arrays, keep, bias = drawn(heads=2)
  keep[:, 0] = 1.0  # the class token, without which nothing is received
  of_class = np.random.default_rng(2).standard_normal(arrays[0].shape[:3]).astype(np.float32)
  compare(*arrays, keep, bias, received, of_class)
  compare(*arrays, None, None, received, of_class)


def test_few_queries_are_softmaxs_own():
  q, k, v, gradient, keep, bias = drawn(heads=2)
  arrays = (q[:, :2], k, v, keep, bias, gradient[:, :2])
  ours, theirs = (gradients(a, False, *arrays) for a in (step_kernels.softmax, softmax))
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_array_equal(a, b)
