"""Rectangles, DeiT's distillation token and layer scale, and one to many stages."""

import dataclasses

import jax
import numpy as np
import oracle
import pytest
import tiny

from asvit_jax import vit, weights
from asvit_jax.core.errors import InputError
from asvit_jax.sparsity import complexity
from asvit_jax.sparsity.executions import packed

# 3 x 5 patches; everything that a network can have beside the class token.
ALL = tiny.arch(
  image_size=(24, 40),
  depth=4,
  prune_before=(1, 3),
  layer_scale=True,
  dist_token=True,
  dist_head=True,
)


@pytest.fixture(scope="module")
def pruned():
  images = tiny.images(ALL, 5)
  return tiny.with_thresholds(ALL, tiny.params(ALL), images, (0.7, 0.4)), images


def run_packed(arch, params, images):
  return jax.jit(lambda p, x: packed.packed(vit.model(arch, p), x, step=8))(params, images)


def test_executions_give_what_the_numpy_reference_gives(pruned):
  params, images = pruned
  tensors = weights.to_timm(params)
  masked, ours = tiny.run_masked(ALL, params, images), run_packed(ALL, params, images)
  dense = tiny.run_dense(ALL, params, images)
  rules = (ALL.heads, ALL.norm_epsilon)
  for i, image in enumerate(images):
    expected, _, _ = oracle.forward(tensors, image, *rules)
    np.testing.assert_allclose(dense.logits[i], expected, atol=1e-5)
    thresholds = np.asarray(params["thresholds"])
    expected, keep, _ = oracle.forward(tensors, image, *rules, ALL.prune_before, thresholds)
    for outputs in (masked, ours):
      np.testing.assert_array_equal(outputs.keep[i], keep)
      np.testing.assert_allclose(outputs.logits[i], expected, atol=2e-5)
  assert len(np.unique(np.asarray(masked.kept), axis=0)) > 2
  # The second head counts by half: without it, the prediction is another.
  one = dataclasses.replace(ALL, dist_head=False)
  rest = {k: v for k, v in params.items() if k != "head_dist"}
  expected, _, _ = oracle.forward(weights.to_timm(rest), images[0], *rules)
  logits = tiny.run_dense(one, rest, images[:1]).logits[0]
  np.testing.assert_allclose(logits, expected, atol=1e-5)
  assert np.abs(logits - dense.logits[0]).max() > 0.01


def test_merging_leaves_the_distillation_token_alone(pruned):
  params, images = pruned
  arch = dataclasses.replace(ALL, reduction="merge", score="attention_novelty")
  masked, ours = tiny.run_masked(arch, params, images), run_packed(arch, params, images)
  np.testing.assert_array_equal(ours.keep, masked.keep)
  np.testing.assert_allclose(ours.logits, masked.logits, atol=2e-5)
  # What is merged is the patches: as reductions and scores see them without that token.
  pruning = packed.Pruning.of(arch)
  stage = jax.jit(lambda p, x: packed.before_first_stage(vit.model(arch, p), x))(params, images)
  keep = np.concatenate([np.ones((5, 2)), masked.keep[:, 0]], axis=1)
  x, sizes = pruning.reduce(stage, keep)
  np.testing.assert_array_equal(x[:, 1], stage.x[:, 1])
  np.testing.assert_array_equal(sizes[:, :2], 1)
  assert (np.asarray(sizes) > 1.5).any()
  np.testing.assert_array_equal(np.isinf(pruning.scores(stage))[0], np.arange(17) < 2)


def test_gmacs_of_a_distilled_rectangle():
  kept = np.array([9.0, 4.0])
  tokens = np.array([15, 9, 9, 4]) + 2  # in blocks 0 to 3
  blocks = (24 * 24 * (4 + 2 * 4) * tokens + 2 * 24 * tokens**2).sum()
  stem = 15 * 8 * 8 * 3 * 24
  np.testing.assert_allclose(complexity.gmacs(ALL, kept), (blocks + stem) / 1e9, rtol=1e-6)
  # Of the last block the rows of two tokens are needed.
  d, n, rows = 24, 6, 2
  whole = 12 * d * d * n + 2 * d * n * n
  needed = rows * 10 * d * d + 2 * d * d * n + rows * 2 * d * n
  spared = complexity.gmacs(ALL, kept) - complexity.real_gmacs(ALL, kept)
  np.testing.assert_allclose(spared, (whole - needed) / 1e9, rtol=1e-3)


@pytest.mark.parametrize(("depth", "stages"), [(3, (1,)), (5, (1, 2, 3, 4))])
def test_one_stage_and_many(depth, stages):
  arch = tiny.arch(width=12, depth=depth, prune_before=stages)
  images = tiny.images(arch, 3)
  params = tiny.network(arch).calibrate(np.uint8(80 + 40 * images), 0.8).params
  masked, ours = tiny.run_masked(arch, params, images), run_packed(arch, params, images)
  np.testing.assert_array_equal(ours.keep, masked.keep)
  np.testing.assert_allclose(ours.logits, masked.logits, atol=2e-5)
  assert masked.kept.shape == (3, len(stages))


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (dict(image_size=(24, 42)), r"image size \(24, 42\) is not a multiple of patch size 8"),
    (dict(image_size=(24,)), r"image size \(24,\) is not valid: expected the side"),
    (dict(image_size="24x"), r"image size '24x' is not valid"),
    (dict(image_size=24.5), r"image size 24\.5 is not valid"),
    (dict(image_size=(0, 8)), r"image size \(0, 8\) is not valid"),
    (dict(patch_size=0), "image size 32 is not a multiple of patch size 0"),
    (dict(dist_head=True), "dist_head: expected model.dist_token with it"),
  ],
  ids=str,
)
def test_shapes_that_cannot_be_are_input_errors(changes, said):
  with pytest.raises(InputError, match=said):
    tiny.arch(**changes)


@pytest.mark.parametrize("stem", ["conv", "lv"])
def test_a_stem_that_halves_refuses_odd_patches(stem):
  with pytest.raises(InputError, match=f"patch size 3 with the '{stem}' stem.*even number"):
    vit.specs(tiny.arch(stem=stem, image_size=33, patch_size=3))


def test_an_image_size_has_one_form():
  for square in (32, (32, 32), [32, 32], "32", "32x32"):
    assert tiny.arch(image_size=square) == tiny.arch()
  rectangle = tiny.arch(image_size="16x48")
  assert (rectangle.image_size, rectangle.grid, rectangle.patches) == ((16, 48), (2, 6), 12)
  assert vit.Architecture.from_json(rectangle.to_json(), "test") == rectangle
  # What older versions know is all that they are told of a network that they could run.
  assert not {"layer_scale", "dist_token", "dist_head"} & tiny.arch().to_json().keys()
