import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.sparsity.executions import in_place, packed
from asvit_jax.sparsity.reductions import REDUCTIONS

pytestmark = pytest.mark.optimized


class Share:
  """A reduction for tests: every kept token takes over the mean of those that go."""

  changes_tokens = True

  def __call__(self, x, present, keep):
    goes = (present * (1.0 - keep))[..., None]
    mean = (goes * x).sum(axis=1, keepdims=True) / jnp.maximum(goes.sum(axis=1, keepdims=True), 1)
    return x + 0.5 * mean


share = Share()
NAMES = [*REDUCTIONS, "test_reductions:share"]


@pytest.fixture(scope="module", params=NAMES)
def network(request, pruned):
  """(arch, params, images) of the network of `pruned`, with every reduction."""
  arch, params, images = pruned
  arch = dataclasses.replace(arch, reduction=request.param)
  return arch, tiny.with_thresholds(arch, params, images, (0.7, 0.5, 0.3)), images


@pytest.mark.parametrize("images_in_batch", [1, 6])
def test_packed_equals_masked(network, images_in_batch):
  arch, params, images = network
  masked = tiny.run_masked(arch, params, images)
  run = jax.jit(lambda p, x: packed.packed(vit.model(arch, p), x, 4, 2))
  ours = run(params, images[:images_in_batch])
  np.testing.assert_array_equal(ours.keep, masked.keep[:images_in_batch])
  np.testing.assert_allclose(ours.logits, masked.logits[:images_in_batch], atol=2e-5)
  assert len(np.unique(np.asarray(masked.kept), axis=0)) > 2


def test_a_batch_mate_never_changes_an_image(network):
  arch, params, images = network
  mates = 5 * tiny.images(arch, len(images), seed=9)
  ours, batch = tiny.run_masked(arch, params, images), mates.copy()
  batch[2] = images[2]
  outputs = tiny.run_masked(arch, params, batch)
  np.testing.assert_array_equal(outputs.keep[2], ours.keep[2])
  np.testing.assert_allclose(outputs.logits[2], ours.logits[2], atol=1e-5)


def test_with_everything_kept_nothing_is_changed(network):
  arch, params, images = network
  everything = tiny.run_masked(arch, params | {"thresholds": -jnp.ones(3)}, images)
  dense = tiny.run_dense(arch, params, images)
  np.testing.assert_allclose(everything.logits, dense.logits, atol=1e-5)


def test_gradients_reach_thresholds_and_stay_finite(network):
  arch, params, images = network

  @jax.jit
  @jax.grad
  def grads(params):
    return (in_place.masked(vit.model(arch, params), images).logits ** 2).sum()

  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads(params)))


@pytest.mark.parametrize("name", NAMES)
def test_the_class_token_and_tokens_of_other_images_take_no_part_in_each_other(name):
  reduction = REDUCTIONS[name]
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((3, 9, 4)), jnp.float32)
  present = jnp.asarray(rng.random((3, 9)) < 0.8, jnp.float32).at[:, 0].set(1)
  keep = present * jnp.asarray(rng.random((3, 9)) < 0.5, jnp.float32).at[:, 0].set(1)
  reduced = reduction(x, present, keep)
  assert (reduced.shape, reduced.dtype) == (x.shape, x.dtype)
  alone = reduction(x[1:2], present[1:2], keep[1:2])
  np.testing.assert_allclose(reduced[1:2], alone, rtol=1e-6)
  if not reduction.changes_tokens:
    np.testing.assert_array_equal(reduced, x)


def test_a_reduction_that_changes_tokens_changes_the_prediction(pruned):
  # So that the tests above say something of how it is called.
  arch, params, images = pruned
  other = dataclasses.replace(arch, reduction="test_reductions:share")
  ours, dropped = (tiny.run_masked(a, params, images).logits for a in (other, arch))
  assert np.abs(ours - dropped).max() > 0.01
