import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import tiny

from asvit_jax import vit, weights
from asvit_jax.losses.criteria import CROSS_ENTROPY
from asvit_jax.sparsity import complexity, gates
from asvit_jax.sparsity.executions import in_place

# At the training temperature of 1e-4 the sigmoid is a step to finite differences.
SMOOTH = functools.partial(gates.soft_gate, temperature=0.05)


def run_reference(arch, params, image):
  return oracle.forward(
    weights.to_timm(params),
    image,
    arch.heads,
    arch.norm_epsilon,
    arch.prune_before,
    np.asarray(params.get("thresholds", ())),
  )


def test_dense_equals_the_numpy_reference(pruned):
  arch, params, images = pruned
  outputs = tiny.run_dense(arch, params, images)
  dense = {k: v for k, v in weights.to_timm(params).items() if "score_predictor" not in k}
  for logits, image in zip(outputs.logits, images, strict=True):
    expected, _, _ = oracle.forward(dense, image, arch.heads, arch.norm_epsilon)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_masked_equals_the_numpy_reference_that_takes_pruned_tokens_out(pruned):
  arch, params, images = pruned
  outputs = tiny.run_masked(arch, params, images)
  for i, image in enumerate(images):
    logits, keep, scores = run_reference(arch, params, image)
    np.testing.assert_array_equal(outputs.keep[i], keep)
    np.testing.assert_array_equal(outputs.kept[i], keep.sum(axis=1))
    np.testing.assert_allclose(outputs.logits[i], logits, atol=2e-5)
    for stage, of_tokens in enumerate(scores):
      ours = outputs.scores[i, stage, list(of_tokens)]
      np.testing.assert_allclose(ours, list(of_tokens.values()), atol=1e-5)
  # The comparison means something only where images keep different numbers of tokens.
  assert len(np.unique(np.asarray(outputs.kept), axis=0)) > 2


def test_masked_with_everything_kept_equals_dense(pruned):
  arch, params, images = pruned
  below_all_scores = params | {"thresholds": -jnp.ones(3)}
  outputs = tiny.run_masked(arch, below_all_scores, images)
  dense = tiny.run_dense(arch, params, images)
  assert (outputs.kept == arch.patches).all()
  np.testing.assert_allclose(outputs.logits, dense.logits, atol=1e-5)
  np.testing.assert_allclose(outputs.tokens, dense.tokens, atol=3e-5)


def test_masked_with_everything_pruned_sees_the_class_token_alone(pruned):
  arch, params, images = pruned
  above_all_scores = params | {"thresholds": jnp.ones(3)}
  outputs = tiny.run_masked(arch, above_all_scores, images)
  assert (outputs.kept == 0).all()
  logits, _, _ = run_reference(arch, above_all_scores, images[0])
  np.testing.assert_allclose(outputs.logits[0], logits, atol=2e-5)


def test_pruned_tokens_stay_pruned(pruned):
  arch, params, images = pruned
  keep = np.asarray(tiny.run_masked(arch, params, images).keep)
  assert set(np.unique(keep)) == {0.0, 1.0}
  assert (keep[:, 1:] <= keep[:, :-1]).all()
  # However low the later thresholds are.
  low = params | {"thresholds": params["thresholds"].at[1:].set(-1.0)}
  first, *later = np.moveaxis(np.asarray(tiny.run_masked(arch, low, images).keep), 1, 0)
  assert 0 < first.mean() < 1
  for keep in later:
    np.testing.assert_array_equal(keep, first)


def test_a_batch_mate_never_changes_an_image(pruned):
  arch, params, images = pruned
  mates = 5 * tiny.images(arch, len(images), seed=9)
  ours = tiny.run_masked(arch, params, images)
  for i in (0, len(images) - 1):
    batch = mates.copy()
    batch[i] = images[i]
    outputs = tiny.run_masked(arch, params, batch)
    np.testing.assert_array_equal(outputs.keep[i], ours.keep[i])
    np.testing.assert_allclose(outputs.logits[i], ours.logits[i], atol=1e-6)
    assert np.abs(np.asarray(outputs.logits - ours.logits)).max() > 0.1  # the mates are others


def test_the_straight_through_gate_predicts_as_the_hard_one(pruned):
  arch, params, images = pruned
  ours = tiny.run_masked(arch, params, images)
  hard = tiny.run_masked(arch, params, images, gates.hard_gate)
  np.testing.assert_allclose(ours.logits, hard.logits, atol=1e-6)
  np.testing.assert_allclose(ours.keep, hard.keep, atol=1e-6)


def objectives(arch, outputs):
  """(2,): the mean GMACs, scaled to the order of one, and a loss of the logits."""
  targets = jax.nn.one_hot(jnp.arange(len(outputs.logits)) % arch.classes, arch.classes)
  gmacs = complexity.gmacs(arch, outputs.kept).mean() * 1e4
  return jnp.stack([gmacs, CROSS_ENTROPY(outputs.logits, targets)])


def check_gradients(function, thresholds, h=0.01):
  """Holds the derivatives of `function` against the five-point stencil, whose error is O(h⁴).

  Returns them, (2, stages).
  """
  ours = jax.jit(jax.jacrev(function))(thresholds)  # (2, stages)
  compiled = jax.jit(function)
  for i in range(len(thresholds)):
    near, far = (
      compiled(thresholds.at[i].add(s)) - compiled(thresholds.at[i].add(-s)) for s in (h, 2 * h)
    )
    expected = (8 * near - far) / (12 * h)
    assert (np.abs(expected) > 1e-2).all()  # far above the rounding of the differences
    np.testing.assert_allclose(ours[:, i], expected, rtol=5e-3)
  return ours


@pytest.mark.parametrize("stage", [1, 3])
def test_the_gradient_of_one_threshold_matches_finite_differences(stage):
  arch = tiny.arch(depth=4, prune_before=(stage,))
  params, images = tiny.params(arch), tiny.images(arch, 6)

  def function(thresholds):
    model = vit.model(arch, params | {"thresholds": thresholds})
    return objectives(arch, in_place.masked(model, images, SMOOTH))

  check_gradients(function, jnp.asarray([0.05]))


def test_gradients_of_all_thresholds_match_finite_differences_of_their_own_stages():
  # No gradient passes through the product of an earlier stage's mask, so the finite differences
  # are of the function in which that factor is held where it is; everything else may move.
  arch = tiny.arch(depth=4, prune_before=(1, 2, 3))
  params, images = tiny.params(arch), tiny.images(arch, 6)
  thresholds = jnp.asarray([0.04, 0.05, 0.06])

  def forward(thresholds, gate):
    model = vit.model(arch, params | {"thresholds": thresholds})
    return in_place.masked(model, images, gate)

  held = jax.jit(lambda t: forward(t, SMOOTH).keep)(thresholds)

  def holding_earlier_masks():
    stages, before = itertools.count(), None

    def gate(scores, threshold):
      nonlocal before
      stage, soft = next(stages), SMOOTH(scores, threshold)
      factor = held[:, stage - 1] / jax.lax.stop_gradient(before) if stage else 1.0
      before = held[:, stage - 1] * soft if stage else soft
      return factor * soft  # `masked` multiplies by `before`, which leaves `held` · soft

    return gate

  def plain(thresholds):
    return objectives(arch, forward(thresholds, SMOOTH))

  def function(thresholds):
    return objectives(arch, forward(thresholds, holding_earlier_masks()))

  same = check_gradients(function, thresholds)
  np.testing.assert_allclose(jax.jit(jax.jacrev(plain))(thresholds), same, rtol=1e-3)


def test_in_training_a_threshold_feels_the_tokens_whose_scores_are_near(pruned):
  arch, params, images = pruned
  outputs = tiny.run_masked(arch, params, images)
  lowest_kept = jnp.where(outputs.keep > 0.5, outputs.scores, jnp.inf).min(axis=(0, 2))
  thresholds = lowest_kept - 1e-5  # a tenth of the temperature below a score

  def kept(thresholds):
    model = vit.model(arch, params | {"thresholds": thresholds})
    outputs = in_place.masked(model, images)
    return outputs.kept.sum(axis=0), outputs

  slopes, outputs = jax.jit(jax.jacrev(kept, has_aux=True))(thresholds)
  before = np.concatenate([np.ones_like(outputs.keep[:, :1]), outputs.keep[:, :-1]], axis=1)
  x = (np.asarray(outputs.scores, np.float64) - np.asarray(thresholds)[:, None]) / 1e-4
  expected = -(before * 1e4 / (2 + 2 * np.cosh(np.clip(x, -50, 50)))).sum(axis=(0, 2))
  np.testing.assert_allclose(np.diag(slopes), expected, rtol=1e-2)
  assert (expected < -2000).all()  # at least that one token
  assert (np.triu(slopes, 1) == 0).all()  # no count depends on a later threshold
