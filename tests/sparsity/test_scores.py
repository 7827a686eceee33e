import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asvit_jax.sparsity.scores import SCORES
from asvit_jax.sparsity.scores.class_attention import class_attention


def test_token_scores_of_an_example_by_hand():
  # Two tokens, two heads. Norms 5 and 0: only the first head counts. Norms 1 and 3: a quarter of
  # the first and three quarters of the second.
  context = jnp.asarray([[[3.0, 4.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, -3.0]]])
  attention = jnp.asarray([[0.2, 0.9], [0.4, 0.8]])
  expected = [0.2, 0.25 * 0.4 + 0.75 * 0.8]
  np.testing.assert_allclose(
    class_attention(class_attention=attention, context=context), expected, rtol=1e-6
  )


def test_token_scores_do_not_depend_on_the_scale_of_the_context():
  rng = np.random.default_rng(0)
  context = jnp.asarray(rng.standard_normal((4, 3, 5)), jnp.float32)
  attention = jnp.asarray(rng.uniform(size=(4, 3)), jnp.float32)
  np.testing.assert_allclose(
    class_attention(class_attention=attention, context=100 * context),
    class_attention(class_attention=attention, context=context),
    rtol=1e-5,
  )


def evidence(dtype=jnp.float32, absent=0):
  """What a score is told of 2 images of 9 tokens; the last `absent` are not there."""
  rng = np.random.default_rng(4)
  b, n, h, c = 2, 9, 3, 8
  logits = rng.standard_normal((b, n, h))
  attention = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  return {
    "class_attention": jnp.asarray(attention, jnp.float32),
    "context": jnp.asarray(rng.standard_normal((b, n, h, c)), dtype),
    "keys": jnp.asarray(rng.standard_normal((b, n, h, c)), dtype),
    "present": jnp.arange(n) < jnp.full((b, 1), n - absent),
  }


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_score_is_float32_and_finite(name, dtype):
  scores = SCORES[name](**evidence(dtype))
  assert (scores.shape, scores.dtype) == ((2, 9), jnp.float32)
  assert np.isfinite(scores).all()
  assert scores.std() > 0


@pytest.mark.parametrize("name", SCORES)
def test_a_score_does_not_depend_on_the_order_of_the_patches_or_on_other_images(name):
  given = evidence()
  scores = np.asarray(SCORES[name](**given))
  order = np.array([0, 5, 3, 8, 1, 2, 7, 6, 4])
  moved = SCORES[name](**{k: v[:, order] for k, v in given.items()})
  np.testing.assert_allclose(moved, scores[:, order], rtol=1e-5)
  alone = SCORES[name](**{k: v[:1] for k, v in given.items()})
  np.testing.assert_allclose(alone, scores[:1], rtol=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_tokens_that_are_gone_change_no_score(name):
  given = evidence(absent=3)
  scores = SCORES[name](**given)[:, :6]
  gone = np.asarray(given["present"])
  changed = {
    k: v if k == "present" else jnp.where(gone.reshape(*gone.shape, *[1] * (v.ndim - 2)), v, 7.0)
    for k, v in given.items()
  }
  np.testing.assert_allclose(SCORES[name](**changed)[:, :6], scores, rtol=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_compiles_and_has_finite_gradients(name):
  given = evidence()

  @jax.jit
  @jax.grad
  def grads(context):
    return (SCORES[name](**given | {"context": context}) ** 2).sum()

  assert np.isfinite(grads(given["context"])).all()
