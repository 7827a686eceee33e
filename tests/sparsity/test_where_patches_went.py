"""Where every patch went: `Outputs.sources` of every execution, and the grid they give back."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_reductions import share  # noqa: F401, of a network below

import asvit_jax
from asvit_jax import vit
from asvit_jax.core.errors import InputError
from asvit_jax.sparsity.executions import fixed_count, in_place, packed, pieces
from asvit_jax.sparsity.pruning import Pruning

COUNT = 5
DIMENSIONS = dict(width=18, depth=4, prune_before=(1, 2, 3))
KINDS = {
  "drop": {},
  "merge": dict(reduction="merge", dist_token=True),
  "merge_tokens": dict(reduction="merge_tokens", score="merge_cost"),
  "inside": dict(reduction="merge", prune_inside=True, **tiny.LV),
}


@pytest.fixture(scope="module", params=tiny.few(KINDS, "merge", "inside"))
def kind(request):
  """(architecture, parameters with thresholds, images, masked `Outputs`) of a kind of network."""
  arch = tiny.arch(**DIMENSIONS, **KINDS[request.param])
  images = tiny.images(arch, COUNT)
  params = tiny.with_thresholds(arch, tiny.params(arch), images, (0.7, 0.5, 0.3))
  return arch, params, images, jax.device_get(tiny.run_masked(arch, params, images))


@functools.partial(jax.jit, static_argnums=(0, 3))
def run_packed(arch, params, images, group=None):
  return packed.packed(vit.model(arch, params), images, group=group, step=6, tokens=True)


@functools.partial(jax.jit, static_argnums=(0, 3))
def run_fixed(arch, params, images, counts):
  return fixed_count.fixed_count(vit.model(arch, params), images, counts, tokens=True)


def grid(outputs):
  return np.asarray(asvit_jax.unmerge(outputs.tokens, outputs.positions, outputs.sources, 7.0))


def follow_by_hand(arch, params, images):
  """(b, n) sources and (b, prefix + n) sizes by NumPy, one token at a time, from masked stages."""
  model, prefix, n = vit.model(arch, params), arch.prefix_tokens, arch.patches
  stage = in_place.before_first_stage(model, images)
  sources = np.tile(np.arange(prefix, prefix + n), (len(images), 1))
  for index in range(arch.stages):
    keep, _ = in_place.tokens_above(model, index, stage)
    keep = np.asarray(keep)
    compared = stage.cache.keys if arch.reduction == "merge" else stage.x
    vectors = np.asarray(compared, np.float64)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    for image, of_patches in enumerate(sources):
      kept = [token for token in range(prefix, prefix + n) if keep[image, token]]
      for patch, token in enumerate(of_patches):
        if token < 0 or token in kept:
          continue
        like = [vectors[image, token] @ vectors[image, other] for other in kept]
        merges = kept and arch.reduction != "drop"
        of_patches[patch] = kept[int(np.argmax(like))] if merges else -1
    stage = in_place.after_stage(model, index, stage, jnp.asarray(keep[:, prefix:], jnp.float32))
  return sources, stage.sizes


def test_masked_follows_every_patch_over_all_stages(kind):
  arch, params, images, masked = kind
  sources, sizes = follow_by_hand(arch, params, images)
  np.testing.assert_array_equal(masked.sources, sources)
  assert masked.sources.dtype == np.int32
  whole = arch.prefix_tokens + arch.patches
  for image in range(COUNT):
    left = masked.positions[image, arch.prefix_tokens :]
    left = left[left >= 0]
    parts = np.bincount(masked.sources[image][masked.sources[image] >= 0], minlength=whole)
    assert set(np.flatnonzero(parts)) == set(left)  # a token before the patches is not among them
    np.testing.assert_array_equal(masked.sources[image][left - arch.prefix_tokens], left)
    if sizes is not None:
      np.testing.assert_allclose(sizes[image][left], parts[left], rtol=1e-6)
      assert parts.sum() == arch.patches  # nothing is lost
    else:
      assert (parts[left] == 1).all()
  moved = masked.sources != np.arange(arch.prefix_tokens, whole)
  assert moved.any()


def test_packed_says_the_same_whatever_the_batch(kind):
  arch, params, images, masked = kind
  for group, order in ((None, 1), (1, -1)):
    found = run_packed(arch, params, images[::order], group)
    np.testing.assert_array_equal(found.sources, masked.sources[::order])
    np.testing.assert_allclose(grid(found), grid(masked)[::order], atol=1e-4)


def test_fixed_says_the_same_at_equal_counts(kind):
  arch, params, images, masked = kind
  counts = tuple(masked.kept[0].astype(int).tolist())
  found = run_fixed(arch, params, images, counts)
  np.testing.assert_array_equal(found.sources[0], masked.sources[0])
  np.testing.assert_allclose(grid(found)[0], grid(masked)[0], atol=1e-4)
  alone = run_fixed(arch, params, images[1:2], counts)
  np.testing.assert_array_equal(alone.sources[0], found.sources[1])


def test_without_a_patch_left_all_are_dropped(kind):
  arch, params, images, _ = kind
  params = params | {"thresholds": jnp.asarray([-1.0, -1.0, 1e6], jnp.float32)}
  for outputs in (
    tiny.run_masked(arch, params, images[:2]),
    run_packed(arch, params, images[:2]),
    run_fixed(arch, params, images[:2], (arch.patches, 3, 0)),
  ):
    assert (np.asarray(outputs.sources) == -1).all()
    assert (grid(outputs) == 7.0).all()


def test_of_a_dense_network_the_grid_is_the_tokens(kind):
  arch, params, images, _ = kind
  for outputs in (
    tiny.run_dense(arch.dense, vit.without_thresholds(params), images),
    tiny.run_masked(arch, params | {"thresholds": jnp.full(3, -1.0)}, images),
  ):
    np.testing.assert_array_equal(grid(outputs), outputs.tokens[:, arch.prefix_tokens :])


def test_the_grid_takes_rows_in_any_order(kind):
  _, _, _, masked = kind
  rows = np.random.default_rng(0).permutation(masked.positions.shape[1])
  found = asvit_jax.unmerge(masked.tokens[:, rows], masked.positions[:, rows], masked.sources)
  at = masked.sources >= 0
  images = np.arange(COUNT)[:, None]
  np.testing.assert_array_equal(found, masked.tokens[images, masked.sources] * at[..., None])
  compiled = jax.jit(asvit_jax.unmerge)(masked.tokens, masked.positions, masked.sources)
  np.testing.assert_array_equal(compiled, found)


def test_nothing_is_followed_where_nobody_asks(kind):
  arch, params, images, _ = kind
  asked = []

  def follow(sources, *more, **named):
    asked.append(sources)

  def logits(params):
    return in_place.masked(vit.model(arch, params), images).logits

  def flops(params):
    return jax.jit(lambda p: logits(p)).lower(params).compile().cost_analysis()["flops"]

  with_sources = flops(params)
  with mock.patch.object(in_place, "follow", follow):
    assert flops(params) == with_sources  # `jit` drops them
  assert len(asked) == 3
  asked.clear()
  model = vit.model(arch, params)
  with mock.patch.object(packed, "follow", follow):
    outputs = jax.eval_shape(lambda x: packed.packed(model, x, step=9), images)
  with mock.patch.object(fixed_count, "follow", follow):
    jax.eval_shape(lambda x: fixed_count.fixed_count(model, x, (4, 3, 2)), images)
  assert asked
  assert all(sources is None for sources in asked)
  assert outputs.sources is None


def test_a_reduction_that_does_not_say_where_tokens_go_gives_none():
  arch = tiny.arch(**DIMENSIONS, reduction="test_reductions:share")
  assert not Pruning.of(arch).traces
  images = tiny.images(arch, 2)
  params = tiny.with_thresholds(arch, tiny.params(arch), images, (0.7, 0.5, 0.3))
  for outputs in (
    tiny.run_masked(arch, params, images),
    run_packed(arch, params, images),
    run_fixed(arch, params, images, (9, 5, 2)),
  ):
    assert outputs.sources is None
    with pytest.raises(InputError, match=r"sources are unknown: .* no `destinations`"):
      grid(outputs)
  model, rows = vit.model(arch, params), jnp.arange(5)
  scored = jax.eval_shape(lambda x: pieces.start(model, x, tokens=True), images[:1])
  assert scored.sources.shape == (1, arch.patches)
  assert jax.eval_shape(lambda s: pieces.go_on(model, 0, s, rows), scored).sources is None
  dense = tiny.run_dense(arch.dense, vit.without_thresholds(params), images)
  np.testing.assert_array_equal(grid(dense), dense.tokens[:, 1:])


def test_arrays_that_do_not_fit_are_refused(kind):
  *_, masked = kind
  tokens, positions, sources = masked.tokens, masked.positions, masked.sources
  with pytest.raises(InputError, match="no tokens: call the network with tokens=True"):
    asvit_jax.unmerge(None, None, None)
  for given in (
    (tokens, positions[:, 1:], sources),
    (tokens, positions, sources[:2]),
    (tokens[0], positions[0], sources[0]),
  ):
    with pytest.raises(InputError, match="of the same images"):
      asvit_jax.unmerge(*given)
