import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asvit_jax.sparsity.scores import SCORES, class_attention, cosine_similarity, uses_similarity


def test_token_scores_of_an_example_by_hand():
  # Two tokens, two heads. Norms 5 and 0: only the first head counts. Norms 1 and 3: a quarter of
  # the first and three quarters of the second.
  context = jnp.asarray([[[3.0, 4.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, -3.0]]])
  attention = jnp.asarray([[0.2, 0.9], [0.4, 0.8]])
  expected = [0.2, 0.25 * 0.4 + 0.75 * 0.8]
  np.testing.assert_allclose(class_attention.gather(attention, context), expected, rtol=1e-6)


def test_token_scores_do_not_depend_on_the_scale_of_the_context():
  rng = np.random.default_rng(0)
  context = jnp.asarray(rng.standard_normal((4, 3, 5)), jnp.float32)
  attention = jnp.asarray(rng.uniform(size=(4, 3)), jnp.float32)
  np.testing.assert_allclose(
    class_attention.gather(attention, 100 * context),
    class_attention.gather(attention, context),
    rtol=1e-5,
  )


NAMES = pytest.mark.parametrize("name", SCORES)
B, N, H, C = 2, 9, 3, 8


def evidence(dtype=jnp.float32):
  """(class attention, context, keys) of 2 images of 9 tokens."""
  rng = np.random.default_rng(4)
  logits = rng.standard_normal((B, N, H))
  attention = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  context = jnp.asarray(rng.standard_normal((B, N, H, C)), dtype)
  return jnp.asarray(attention, jnp.float32), context, jnp.asarray(rng.standard_normal((B, N, C)))


def scored(name, attention, context, keys, absent=0, exponents=(1.0, 1.0), sizes=None):
  """The scores; the last `absent` tokens are not there."""
  score = SCORES[name]
  present = jnp.arange(attention.shape[1]) < jnp.full((len(attention), 1), N - absent)
  gathered = score.gather(attention, context)
  compared = keys if score.uses_keys else None
  if uses_similarity(score):
    compared = cosine_similarity(keys)
  more = {"sizes": sizes} if getattr(score, "uses_sizes", False) else {}
  return score(gathered, compared, present, exponents, **more)


@NAMES
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_score_is_float32_and_finite(name, dtype):
  scores = scored(name, *evidence(dtype))
  assert (scores.shape, scores.dtype) == ((B, N), jnp.float32)
  assert np.isfinite(scores).all()
  assert scores.std() > 0


@NAMES
def test_a_score_does_not_depend_on_the_order_of_the_patches_or_on_other_images(name):
  given = evidence()
  scores = np.asarray(scored(name, *given))
  order = np.array([0, 5, 3, 8, 1, 2, 7, 6, 4])
  moved = scored(name, *(x[:, order] for x in given))
  np.testing.assert_allclose(moved, scores[:, order], rtol=1e-5)
  alone = scored(name, *(x[:1] for x in given))
  np.testing.assert_allclose(alone, scores[:1], rtol=1e-5)


@NAMES
def test_tokens_that_are_gone_change_no_score(name):
  given = evidence()
  scores = scored(name, *given, absent=3)[:, :6]
  changed = (x.at[:, 6:].set(7.0) for x in given)
  np.testing.assert_allclose(scored(name, *changed, absent=3)[:, :6], scores, rtol=1e-5)


@NAMES
def test_a_score_compiles_and_has_finite_gradients(name):
  grads = jax.jit(jax.grad(lambda *given: (scored(name, *given) ** 2).sum(), (0, 1, 2)))
  assert all(np.isfinite(g).all() for g in grads(*evidence()))


@pytest.mark.parametrize("exponents", [(1.0, 1.0), (0.5, 2.0), (1.0, 0.0)])
def test_novelty_by_hand(exponents):
  attention, context, keys = evidence()
  scores = scored("attention_novelty", attention, context, keys, 2, exponents)
  plain = np.asarray(scored("class_attention", attention, context, keys), np.float64)
  keys = np.asarray(keys, np.float64)
  for b in range(B):
    for j in range(1, N - 2):
      nearest = 0.0
      for i in range(1, N - 2):  # patch tokens that are there
        if plain[b, i] > plain[b, j]:
          cosine = keys[b, i] @ keys[b, j]
          cosine /= np.linalg.norm(keys[b, i]) * np.linalg.norm(keys[b, j])
          nearest = max(nearest, cosine)
      expected = plain[b, j] ** exponents[0] * (1 - nearest) ** exponents[1]
      np.testing.assert_allclose(scores[b, j], expected, rtol=1e-4)


def test_of_two_alike_the_less_attended_is_not_new():
  attention, context, keys = evidence()
  keys = keys.at[:, 4].set(keys[:, 7])
  scores = scored("attention_novelty", attention, context, keys)
  plain = scored("class_attention", attention, context, keys)
  lower = np.where(plain[:, 4] < plain[:, 7], 4, 7)
  assert (np.asarray(scores)[np.arange(B), lower] < 1e-6).all()


@pytest.mark.parametrize(
  "exponents", [(0.5, 1.0, 0.5, 0.0), (0.5, 1.0, 0.5, 0.5), (1.0, 2.0, 0.0, 1.0), (0.5, 1.0)]
)
@pytest.mark.parametrize("merged", [True, False])
def test_the_cost_of_merging_by_hand(exponents, merged):
  attention, context, x = evidence()
  sizes = np.random.default_rng(1).integers(1, 6, (B, N)).astype(np.float32) if merged else None
  given = None if sizes is None else jnp.asarray(sizes)
  scores = scored("merge_cost", attention, context, x, 2, exponents, given)
  plain = np.asarray(scored("class_attention", attention, context, x), np.float64)
  x = np.asarray(x, np.float64)
  beta, gamma, omega, alpha = (*exponents, 0.0, 0.0)[:4]
  for b in range(B):
    costs = []
    for j in range(1, N - 2):
      more = [i for i in range(1, N - 2) if plain[b, i] > plain[b, j]]  # patches that are there
      cosines = [
        x[b, i] @ x[b, j] / np.linalg.norm(x[b, i]) / np.linalg.norm(x[b, j]) for i in more
      ]
      cost = plain[b, j] ** beta * (1 - max(cosines, default=0.0)) ** gamma
      if merged:
        mine = sizes[b, j]
        other = sizes[b, more[int(np.argmax(cosines))]] if more else mine
        cost *= (mine * other / (mine + other)) ** omega
      costs.append(cost)
    level = np.exp(np.mean(np.log(costs)))
    np.testing.assert_allclose(scores[b, 1 : N - 2], costs / level**alpha, rtol=1e-4)


def test_relative_costs_of_an_image_do_not_depend_on_its_level():
  attention, context, x = evidence()
  exponents = (0.5, 1.0, 0.5, 1.0)
  scores = scored("merge_cost", attention, context, x, exponents=exponents)
  dimmer = scored("merge_cost", attention * 0.01, context, x, exponents=exponents)
  np.testing.assert_allclose(dimmer[:, 1:], scores[:, 1:], rtol=1e-4)


def test_users_parts_may_import_our_classes_by_the_names_of_former_modules():
  for module, name in (
    ("attentions.softmax", "Softmax"),
    ("scores.class_attention", "ClassAttention"),
  ):
    former = importlib.import_module(f"asvit_jax.sparsity.{module}")
    now = importlib.import_module(f"asvit_jax.sparsity.{module.partition('.')[0]}")
    assert getattr(former, name) is getattr(now, name)
