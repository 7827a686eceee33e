"""Fixed execution: as many tokens of every image, which is masked where thresholds keep so many."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.sparsity.executions import EXECUTIONS, grouped
from asvit_jax.sparsity.executions.fixed_count import fixed_count
from asvit_jax.sparsity.schedule import counts_at, mean_counts, uniform_counts

KINDS = {
  "drop": {"reduction": "drop"},
  "merge": {"reduction": "merge"},
  "merge_tokens": {"reduction": "merge_tokens"},
  "inside": {"reduction": "merge", "prune_inside": True},
  "two class tokens": {"reduction": "merge_tokens", "dist_token": True, "dist_head": True},
  "auxiliary head": {"reduction": "merge", "prune_inside": True, **tiny.LV},
}


def program(arch, params, images, counts):
  return EXECUTIONS["fixed"](vit.model(arch, params, counts=counts), images, True)


run = jax.jit(program, static_argnums=(0, 3))


@pytest.fixture(
  scope="module", params=tiny.few(KINDS, "drop", "two class tokens", "auxiliary head")
)
def kind(request):
  """(architecture, parameters with thresholds, images) of a kind of network."""
  arch = tiny.arch(**KINDS[request.param])
  images = tiny.images(arch, 3)
  return arch, tiny.with_thresholds(arch, tiny.params(arch), images, (0.7, 0.5, 0.3)), images


def test_fixed_is_masked_where_the_thresholds_keep_so_many(kind):
  arch, params, images = kind
  masked = jax.device_get(tiny.run_masked(arch, params, images))
  assert len(np.unique(masked.kept, axis=0)) > 1
  for i, kept in enumerate(masked.kept[:2]):
    counts = tuple(kept.astype(int).tolist())
    # Whatever else is in the batch.
    fixed = jax.device_get(run(arch, params, images, counts))
    np.testing.assert_array_equal(fixed.keep[i], masked.keep[i])
    np.testing.assert_array_equal(fixed.kept, [counts] * len(images))
    np.testing.assert_allclose(fixed.logits[i], masked.logits[i], atol=3e-5)
    positions, left = fixed.positions[i], masked.positions[i]
    there = arch.prefix_tokens + counts[-1]
    assert (positions[there:] == -1).all()
    np.testing.assert_array_equal(positions[:there], left[left >= 0])
    expected = masked.tokens[i][positions[:there]]
    np.testing.assert_allclose(fixed.tokens[i][:there], expected, atol=1e-4)
    before = np.concatenate([np.ones_like(masked.keep[:1, 0]), masked.keep[i, :-1]])
    np.testing.assert_allclose(fixed.scores[i], masked.scores[i] * before, atol=1e-5)


def test_others_of_the_batch_never_matter(kind):
  arch, params, images = kind
  together = run(arch, params, images, (9, 5, 2))
  alone = [run(arch, params, images[i : i + 1], (9, 5, 2)) for i in range(len(images))]
  for i, one in enumerate(alone):
    np.testing.assert_array_equal(one.keep[0], together.keep[i])
    np.testing.assert_allclose(one.logits[0], together.logits[i], atol=1e-5)


def test_images_a_few_at_a_time_give_the_same(kind, monkeypatch):
  arch, params, images = kind
  expected = run(arch, params, images, (9, 5, 2))
  monkeypatch.setattr(grouped, "CACHED_PACKED", 1)
  found = jax.jit(lambda params, images: program(arch, params, images, (9, 5, 2)))(params, images)
  for name in ("logits", "tokens", "positions", "keep", "scores", "kept"):
    np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-5)


def test_no_patch_may_be_left(kind):
  arch, params, images = kind
  none = tiny.run_masked(arch, params | {"thresholds": jnp.array([-1.0, np.inf, np.inf])}, images)
  nothing = run(arch, params, images, (arch.patches, 0, 0))
  assert (np.asarray(nothing.kept) == (arch.patches, 0, 0)).all()
  np.testing.assert_allclose(nothing.logits, none.logits, atol=3e-5)


def test_of_equal_scores_the_first_stay():
  arch = tiny.arch(prune_before=(2,))
  model = vit.model(arch, tiny.params(arch))
  images = tiny.images(arch, 2)

  class Equal:
    uses_keys = False

    def gather(self, class_attention, context):
      return class_attention

    def __call__(self, gathered, keys, present, exponents):
      return jnp.ones(present.shape, jnp.float32)

  from asvit_jax.sparsity.pruning import Pruning

  pruning = dataclasses.replace(Pruning.of(arch), score=Equal())
  keep = jax.jit(lambda x: fixed_count(model, x, (5,), pruning).keep)(images)
  np.testing.assert_array_equal(keep[:, 0], [[1] * 5 + [0] * (arch.patches - 5)] * 2)


def test_counts_of_budgets_and_ratios():
  assert mean_counts([[4, 2], [7, 3], [6, 2]]) == (6, 2)
  rows = ((16, 8), (10, 2))
  assert counts_at(rows, (0.9, 0.5), 0.7) == (13, 5)
  assert counts_at(rows, (0.9, 0.5), 0.9) == (16, 8)
  assert counts_at(rows[:1], (0.9, 0.5), 0.6) == (16, 8)
  assert uniform_counts(tiny.arch(), 0.5) == (8, 4, 2)
