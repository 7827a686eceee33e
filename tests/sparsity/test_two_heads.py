"""LV-ViT's prediction: the class head, and half of what the best of the kept patches says."""

import functools

import jax
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.sparsity.executions.packed import packed
from asvit_jax.weights import to_timm

ARCH = tiny.arch(depth=4, prune_before=(1, 2, 3), **tiny.LV)
STAGES = len(ARCH.prune_before)

pytestmark = pytest.mark.usefixtures("short_ladders")


@pytest.fixture(scope="module")
def lvvit():
  """(params, images): thresholds prune differently in each image."""
  images = tiny.images(ARCH, 5)
  return tiny.with_thresholds(ARCH, tiny.params(ARCH), images, (0.7, 0.5, 0.3)), images


@functools.cache
def _program():
  return jax.jit(lambda p, x: packed(vit.model(ARCH, p), x, group=max(1, len(x) // 3)))


def run_packed(params, images):
  return _program()(params, images)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("thresholds", [None, -1.0, 1.0], ids=["mixed", "all kept", "none kept"])
def test_packed_equals_masked(lvvit, count, thresholds):
  params, images = lvvit
  if thresholds is not None:
    params = params | {"thresholds": np.full(STAGES, thresholds, np.float32)}
  masked = tiny.run_masked(ARCH, params, images)
  packed = run_packed(params, images[:count])
  np.testing.assert_array_equal(packed.keep, masked.keep[:count])
  np.testing.assert_allclose(packed.logits, masked.logits[:count], atol=3e-5)
  if thresholds is None:
    assert len(np.unique(np.asarray(masked.kept), axis=0)) > 2  # images keep different numbers


def test_masked_and_packed_with_every_token_equal_dense(lvvit):
  params, images = lvvit
  dense = tiny.run_dense(ARCH, params, images)
  params = params | {"thresholds": np.full(STAGES, -1, np.float32)}
  for ours in (tiny.run_masked(ARCH, params, images), run_packed(params, images)):
    np.testing.assert_allclose(ours.logits, dense.logits, atol=3e-5)


def test_the_prediction_adds_half_the_best_auxiliary_logit_of_the_kept_patches(lvvit):
  params, images = lvvit
  # Packed returns neither head, and never computes a pruned token: masked tells what to expect.
  masked = tiny.run_masked(ARCH, params, images)
  tokens, keep = np.asarray(masked.tokens, np.float64), np.asarray(masked.keep[:, -1]) > 0
  head, aux = ({k: np.asarray(v) for k, v in params[name].items()} for name in ("head", "aux_head"))
  changed = 0
  for i in range(len(images)):
    class_logits = tokens[i, 0] @ head["kernel"] + head["bias"]
    aux_logits = tokens[i, 1:] @ aux["kernel"] + aux["bias"]
    expected = class_logits + 0.5 * aux_logits[keep[i]].max(axis=0)
    np.testing.assert_allclose(masked.class_logits[i], class_logits, atol=1e-5)
    np.testing.assert_allclose(masked.aux_logits[i], aux_logits, atol=1e-5)
    np.testing.assert_allclose(masked.logits[i], expected, atol=1e-5)
    changed += (aux_logits.max(axis=0) > aux_logits[keep[i]].max(axis=0) + 0.01).any()
  assert changed  # a pruned token would have changed some prediction


def test_without_a_kept_patch_the_class_head_predicts_alone(lvvit):
  params, images = lvvit
  params = params | {"thresholds": np.full(STAGES, 1, np.float32)}
  masked = tiny.run_masked(ARCH, params, images)
  np.testing.assert_array_equal(masked.logits, masked.class_logits)
  for ours in (masked, run_packed(params, images), run_packed(params, images[:1])):
    assert np.isfinite(ours.logits).all()
    np.testing.assert_allclose(ours.logits, masked.class_logits[: len(ours.logits)], atol=3e-5)


@pytest.mark.external
def test_a_pytorch_forward_of_the_published_names_gives_the_same_logits(lvvit):
  pytest.importorskip("torch")
  import torch_lvvit

  params, images = lvvit
  params = vit.without_thresholds(params)
  expected = torch_lvvit.forward(to_timm(params), images, ARCH.heads)
  ours = tiny.run_dense(ARCH.dense, params, images)
  for a, b in zip((ours.logits, ours.class_logits, ours.aux_logits), expected, strict=True):
    np.testing.assert_allclose(a, b, atol=3e-5)
