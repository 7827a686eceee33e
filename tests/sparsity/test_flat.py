"""Flat execution equals masked image by image, in its reference and with rungs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.executions import flat, flat_rows

COST = dict(score="merge_cost", reduction="merge_tokens", score_exponents=(0.5, 1.0, 1.0, 1.0))
KINDS = {
  "drop": {},
  "merge": dict(reduction="merge", score="attention_novelty"),
  "merge_cost": COST,
  "lv": tiny.LV,
  "avg": dict(pool="avg", reduction="merge"),
  "eva02": tiny.EVA02,
  "dinov3": tiny.DINOV3 | dict(registers=4),
  "inside": dict(prune_inside=True),
  "two heads": dict(dist_token=True, dist_head=True),
}


def pruned(images=5, **changes):
  arch = tiny.arch(**changes)
  batch = tiny.images(arch, images)
  return arch, tiny.with_thresholds(arch, tiny.params(arch), batch, (0.8, 0.6, 0.4)), batch


def run(arch, params, images, tokens=False, dtype=jnp.float32, **options):
  def forward(params, images):
    return flat.flat(vit.model(arch, params, dtype=dtype), images, tokens=tokens, **options)

  return jax.jit(usual(forward))(params, images)


def assert_equals(ours, masked, different):
  """Holds all outputs of flat against masked's; more than `different` images keep other numbers."""
  np.testing.assert_array_equal(ours.keep, masked.keep)
  np.testing.assert_allclose(ours.logits, masked.logits, atol=1e-5)
  np.testing.assert_array_equal(ours.sources, masked.sources)
  assert len(np.unique(np.asarray(ours.kept), axis=0)) > different
  for tokens, positions, wanted in zip(ours.tokens, ours.positions, masked.tokens, strict=True):
    there = np.asarray(positions) >= 0
    np.testing.assert_allclose(tokens[there], wanted[positions[there]], atol=2e-5)


@pytest.mark.parametrize("kind", tiny.few(list(KINDS), "drop", "merge_cost", "lv", "dinov3"))
def test_it_equals_masked(kind):
  arch, params, images = pruned(**KINDS[kind])
  ours = run(arch, params, images, tokens=True)
  assert_equals(ours, tiny.run_masked(arch, params, images), different=2)
  np.testing.assert_array_equal(ours.kept[:, -1] + arch.prefix_tokens, (ours.positions >= 0).sum(1))


def test_the_rung_never_matters():
  arch, params, images = pruned(**COST)
  most = flat_rows.most_rows(len(images), 17)
  expected = run(arch, params, images, tokens=True)
  for first in (48, 112):  # some stages run at the first rung, some at the next, some at the last
    ours = run(arch, params, images, tokens=True, rungs=[(first, first + 32, most)] * 3)
    np.testing.assert_array_equal(ours.keep, expected.keep)
    np.testing.assert_allclose(ours.logits, expected.logits, atol=1e-5)
    np.testing.assert_array_equal(ours.positions, expected.positions)


def test_batch_mates_never_matter():
  arch, params, images = pruned(**KINDS["merge"])
  mates = 5 * tiny.images(arch, len(images), seed=9)
  ours = run(arch, params, images)
  mates[1] = images[1]
  other = run(arch, params, mates)
  np.testing.assert_array_equal(other.keep[1], ours.keep[1])
  np.testing.assert_allclose(other.logits[1], ours.logits[1], atol=1e-6)
  assert np.abs(np.asarray(other.logits - ours.logits)).max() > 0.1
  alone = run(arch, params, images[1:2])
  np.testing.assert_allclose(alone.logits[0], ours.logits[1], atol=5e-6)


def test_rows_and_windows_are_inverse():
  count = jnp.array([3, 17, 1, 16])
  start = jnp.array([0, 8, 32, 40])
  windows = np.random.default_rng(0).standard_normal((4, 17, 2)).astype(np.float32)
  layout = flat_rows.Layout(start, count, None, jnp.zeros((4, 17), jnp.int32), None)
  assert int(layout.total) == 56
  for length in (56, flat_rows.most_rows(4, 17)):
    rows = flat_rows.reference.rows(windows, layout, length)
    assert rows.shape == (length, 2)
    for image in range(4):
      here = rows[start[image] : start[image] + count[image]]
      np.testing.assert_array_equal(here, windows[image, : count[image]])
    # What no token has may be anything.
    owned = np.concatenate([s + np.arange(c) for s, c in zip(start, count, strict=True)])
    spoilt = np.full(rows.shape, np.nan, np.float32)
    spoilt[owned] = np.asarray(rows)[owned]
    back = flat_rows.reference.windows(jnp.asarray(spoilt), layout)
    np.testing.assert_array_equal(back, np.where(layout.present[..., None], windows, 0))
