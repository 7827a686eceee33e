"""docs/method.md: the code that it shows computes what the functions that it links to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_readme import ROOT, run_examples

from asvit_jax.losses import terms as loss_terms
from asvit_jax.losses.objective import Objective
from asvit_jax.sparsity import calibration, complexity, gates
from asvit_jax.sparsity.attentions import softmax
from asvit_jax.sparsity.reductions import merge_tokens
from asvit_jax.sparsity.scores import class_attention
from asvit_jax.vit import model, without_thresholds

ARCH = tiny.TRAINED


@pytest.fixture(scope="module")
def shown():
  """The functions of the page, by name."""
  return run_examples(ROOT / "docs" / "method.md")


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def test_the_score(shown, rng):
  attention, context = rng.random((2, 9, 3)), rng.standard_normal((2, 9, 3, 4))
  expected = class_attention.gather(attention, jnp.asarray(context))
  np.testing.assert_allclose(shown["score"](attention, context), expected, rtol=1e-6)


def test_the_gate_and_its_gradient(shown):
  scores = jnp.array([0.0, 0.00195, 0.002, 0.00205, 0.1])
  for theta in (0.00195, 0.002):
    np.testing.assert_array_equal(
      shown["gate"](scores, theta), gates.straight_through_gate(scores, theta)
    )
    gradient = jax.jacobian(lambda t: shown["gate"](scores, t))(theta)
    sigmoid = jax.nn.sigmoid((scores - theta) / 1e-4)
    np.testing.assert_allclose(gradient, -1e4 * sigmoid * (1 - sigmoid), rtol=1e-4, atol=1e-30)
    expected = jax.jacobian(lambda t: gates.straight_through_gate(scores, t))(theta)
    np.testing.assert_array_equal(gradient, expected)


def test_masked_attention_and_its_gradient(shown, rng):
  b, n, h, c = 2, 7, 3, 4
  q, k, v = (jnp.asarray(3 * rng.standard_normal((b, n, h, c)), jnp.float32) for _ in range(3))
  keep = jnp.asarray(rng.random((b, n)) < 0.5, jnp.float32).at[:, 0].set(1.0)

  def on_the_page(keep):
    logits = jnp.einsum("bqhc,bkhc->bhqk", q, k) / np.sqrt(c)
    attention = shown["masked_attention"](logits, keep)
    return jnp.einsum("bhqk,bkhc->bqhc", attention, v), jnp.swapaxes(attention[:, :, 0], 1, 2)

  of_package = softmax.masked(q, k, v, keep)
  for one, other in zip(on_the_page(keep), of_package, strict=True):
    np.testing.assert_allclose(one, other, atol=2e-6)
  one, other = (
    jax.grad(lambda m, f=f: (f(m)[0] ** 2).sum())(keep)
    for f in (on_the_page, lambda m: softmax.masked(q, k, v, m))
  )
  assert np.abs(other).max() > 0
  np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * float(np.abs(other).max()))


def test_the_costs(shown, rng):
  tokens = rng.integers(1, ARCH.patches, (5, ARCH.depth)).astype(np.float32)
  stem = ARCH.patches * 3 * ARCH.patch_size**2 * ARCH.width
  costs = shown["gmacs"](tokens, ARCH.width, ARCH.hidden, stem)
  np.testing.assert_allclose(costs, complexity.gmacs_of_blocks(ARCH, tokens), rtol=1e-6)
  dense = shown["gmacs"](np.full((1, ARCH.depth), ARCH.patches), ARCH.width, ARCH.hidden, stem)
  assert dense[0] == pytest.approx(complexity.dense_gmacs(ARCH))


def test_the_objective(shown):
  images = tiny.images(ARCH, 4)
  params = tiny.with_thresholds(ARCH, tiny.params(ARCH), images, (0.7, 0.5, 0.3))
  targets = jax.nn.one_hot(jnp.arange(4) % ARCH.classes, ARCH.classes)
  other = without_thresholds(tiny.params(ARCH, seed=1))  # else the divergence would be small
  teacher = tiny.run_dense(ARCH, other, images)
  target = complexity.target_gmacs(ARCH, 0.5)
  total, (terms, outputs) = jax.jit(
    lambda params: Objective(target_gmacs=target)(model(ARCH, params), images, targets, teacher)
  )(params)
  assert set(terms) == {"classification", "budget", "distillation", "gmacs"}
  assert terms["budget"] > 0 and terms["distillation"] > 0
  costs = complexity.gmacs(ARCH, outputs.kept)
  cross_entropy = -(targets * jax.nn.log_softmax(outputs.logits)).sum(axis=-1).mean()
  on_the_page = shown["objective"](
    cross_entropy, costs, target, outputs.logits, teacher.class_logits
  )
  np.testing.assert_allclose(on_the_page, total, rtol=1e-5)
  np.testing.assert_allclose(
    shown["objective"](0.0, costs, costs.mean(), outputs.logits, teacher.class_logits),
    0.5 * loss_terms.divergence(outputs.logits, teacher.class_logits).mean(),
    rtol=1e-5,
  )


@pytest.mark.parametrize("share", [0.1, 0.5, 0.6])
def test_the_threshold(shown, rng, share):
  scores, present = rng.random((6, 20)), rng.random((6, 20)) < 0.8
  threshold = shown["threshold"](scores, present, share)
  assert (scores[present] > threshold).sum() == round(share * 120)
  expected = calibration._threshold(scores[present], round(share * present.size))
  assert threshold == pytest.approx(expected, rel=1e-6)


def test_merging(shown, rng):
  n = 8
  x, sizes = rng.standard_normal((n, 5)), rng.integers(1, 5, n).astype(np.float32)
  keep = np.array([1, 1, 0, 1, 0, 0, 1, 0], np.float32)
  similarity = np.corrcoef(x)[None]
  into = np.asarray(merge_tokens.destinations(keep[None], jnp.asarray(similarity)))[0]
  on_the_page = shown["merge"](jnp.asarray(x), jnp.asarray(sizes), keep == 0, into)
  expected = merge_tokens(
    jnp.asarray(x)[None], sizes[None], np.ones((1, n), np.float32), keep[None], similarity
  )
  for one, other in zip(on_the_page, expected, strict=True):
    np.testing.assert_allclose(one[keep > 0], other[0][keep > 0], rtol=1e-5)
