import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asvit_jax.sparsity.attentions import ATTENTIONS, EPSILON, softmax
from asvit_jax.sparsity.pruning import Pruning
from asvit_jax.sparsity.reductions import REDUCTIONS
from asvit_jax.sparsity.scores import SCORES

B, N, H, C = 2, 9, 3, 8  # token 0 is the class token


@pytest.fixture(params=list(ATTENTIONS))
def pruning(request):
  """Every attention of the table, with the paper's score."""
  return with_attention(request.param)


def with_attention(name):
  return Pruning(ATTENTIONS[name], SCORES["class_attention"], REDUCTIONS["drop"])


def of_patches(attended):
  """(context, the paper's scores of the patch tokens)."""
  context, cache = attended
  return context, cache.score[:, 1:]


def qkv(seed=0, scale=2.0, dtype=np.float32):
  rng = np.random.default_rng(seed)
  q, k, v = rng.standard_normal((3, B, N, H, C)).astype(np.float32)
  return jnp.asarray(scale * q, dtype), jnp.asarray(scale * k, dtype), jnp.asarray(v, dtype)


def keep_mask():
  """Different tokens, and a different number of them, in each image."""
  keep = np.ones((B, N), np.float32)
  keep[0, [2, 3, 7]] = 0
  keep[1, [1, 4, 5, 6, 8]] = 0
  return keep


def with_logits_of(logit, q, keep):
  """Keys of pruned tokens so aligned with the mean query of their head that logits get huge."""
  direction = np.asarray(q).mean(axis=1, keepdims=True)  # (b, 1, h, c)
  aligned = (np.asarray(q) * direction).sum(-1, keepdims=True) * C**-0.5
  return direction * (logit / np.abs(aligned).max())


def test_masked_with_everything_kept_equals_dense(pruning):
  context, scores = of_patches(pruning.masked(*qkv(), jnp.ones((B, N))))
  expected_context, expected_scores = of_patches(pruning.dense(*qkv()))
  np.testing.assert_allclose(context, expected_context, atol=1e-5)
  np.testing.assert_allclose(scores, expected_scores, atol=1e-5)


def test_masked_is_the_formula_of_the_paper_where_logits_are_moderate():
  pruning = with_attention("softmax")
  # The paper subtracts the largest logit of all; the library that of the kept ones, see `masked`.
  inputs = qkv(scale=0.7)
  q, k, v = (np.asarray(x, np.float64) for x in inputs)
  keep = keep_mask()
  visible = np.where(np.eye(N, dtype=bool), 1, keep[:, None, None, :])
  logits = np.einsum("bqhc,bkhc->bhqk", q, k) / np.sqrt(C)
  mass = np.exp(logits - logits.max(axis=-1, keepdims=True)) * visible
  weights = (mass + 1e-6 / N) / (mass.sum(axis=-1, keepdims=True) + 1e-6)
  context, _ = of_patches(pruning.masked(*inputs, jnp.asarray(keep)))
  np.testing.assert_allclose(context, np.einsum("bhqk,bkhc->bqhc", weights, v), atol=3e-5)


def test_masked_equals_dense_attention_over_the_kept_tokens_alone(pruning):
  q, k, v = qkv()
  context, scores = of_patches(pruning.masked(q, k, v, jnp.asarray(keep_mask())))
  for image, keep in enumerate(keep_mask() > 0):
    alone = (x[image : image + 1, keep] for x in (q, k, v))
    expected_context, expected_scores = of_patches(pruning.dense(*alone))
    np.testing.assert_allclose(context[image, keep], expected_context[0], atol=1e-5)
    np.testing.assert_allclose(scores[image, keep[1:]], expected_scores[0], atol=1e-5)


def test_prefix_equals_dense_attention_over_the_first_tokens_alone(pruning):
  q, k, v = qkv()
  counts = (9, 4)
  context, scores = of_patches(pruning.prefix(q, k, v, jnp.asarray(counts)))
  for image, count in enumerate(counts):
    alone = (x[image : image + 1, :count] for x in (q, k, v))
    expected_context, expected_scores = of_patches(pruning.dense(*alone))
    np.testing.assert_allclose(context[image, :count], expected_context[0], atol=1e-5)
    np.testing.assert_allclose(scores[image, : count - 1], expected_scores[0], atol=1e-5)


@pytest.mark.parametrize("logit", [1.0, 50.0, 500.0])
def test_a_pruned_token_moves_kept_ones_by_no_more_than_epsilon(pruning, logit):
  q, k, v = qkv()
  keep = keep_mask()
  pruned = keep[..., None, None] == 0
  other_k = jnp.where(pruned, with_logits_of(logit, q, keep), k)
  other_v = jnp.where(pruned, v + 10.0, v)
  logits = np.einsum("bqhc,bkhc->bhqk", q, other_k) / np.sqrt(C)
  assert np.abs(logits * (keep == 0)[:, None, None]).max() > logit / 2

  context, scores = of_patches(pruning.masked(q, k, v, jnp.asarray(keep)))
  moved_context, moved_scores = of_patches(pruning.masked(q, other_k, other_v, jnp.asarray(keep)))
  moved = np.abs(moved_context - context)[keep > 0]
  assert moved.max() <= 1.1 * 10.0 * EPSILON
  patch_keep = keep[:, 1:] > 0
  moved = np.abs(moved_scores - scores)[patch_keep]
  assert moved.max() <= 10 * EPSILON


def test_gradients_stay_finite_however_large_a_pruned_logit_is(pruning):
  q, k, v = qkv()
  keep = keep_mask()
  k = jnp.where(keep[..., None, None] == 0, with_logits_of(500.0, q, keep), k)

  def total(q, k, v, keep):
    context, scores = of_patches(pruning.masked(q, k, v, keep))
    return (context**2).sum() + scores.sum()

  grads = jax.grad(total, argnums=(0, 1, 2, 3))(q, k, v, jnp.asarray(keep))
  assert all(np.isfinite(g).all() for g in grads)
  assert np.abs(grads[3]).max() > 0


@pytest.mark.parametrize(("logit", "expected"), [(-2.0, -2.0), (4.5, 4.5), (30.0, 5.0)])
def test_what_the_mask_feels_of_a_pruned_token_is_exact_up_to_a_bound(logit, expected):
  """Where key 0 is kept, at logit 0 and value 0, and key 1 pruned: d/dm m·e^l ÷ (1 + m·e^l)."""
  k = jnp.array([0.0, logit]).reshape(1, 2, 1, 1)
  v = jnp.array([0.0, 1.0]).reshape(1, 2, 1, 1)

  def class_context(keep):
    return softmax.masked(jnp.ones((1, 2, 1, 1)), k, v, keep)[0][0, 0, 0, 0]

  gradient = jax.grad(class_context)(jnp.array([[1.0, 0.0]]))
  np.testing.assert_allclose(gradient[0, 1], np.exp(expected), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("execution", ["dense", "masked"])
def test_scores_are_float32_between_zero_and_the_largest_class_attention(pruning, execution, dtype):
  q, k, v = qkv(dtype=dtype)
  if execution == "dense":
    keep = np.ones((B, N), np.float32)
    context, scores = of_patches(pruning.dense(q, k, v))
  else:
    keep = keep_mask()
    context, scores = of_patches(pruning.masked(q, k, v, jnp.asarray(keep)))
  assert (scores.shape, scores.dtype) == ((B, N - 1), jnp.float32)
  assert (context.shape, context.dtype) == ((B, N, H, C), dtype)
  logits = np.einsum("bhc,bkhc->bhk", *(np.asarray(x, np.float64) for x in (q[:, 0], k)))
  mass = np.exp(logits / np.sqrt(C)) * keep[:, None]
  class_attention = (mass / mass.sum(axis=-1, keepdims=True))[..., 1:]  # (b, h, n)
  # A score is a mean of the heads' class attentions, so it lies between the extremes.
  slack = 1e-6 if dtype == jnp.float32 else 0.02
  assert (scores >= class_attention.min(axis=1) - slack).all()
  assert (scores <= class_attention.max(axis=1) + slack).all()
  assert (scores >= 0).all()
  assert (scores[keep[:, 1:] > 0] > 1e-6).any()


def test_bfloat16_scores_stay_close_to_float32_ones(pruning):
  # Softmax and scores are float32 in both; what remains is the rounding of q, k and v themselves.
  _, expected = of_patches(pruning.dense(*qkv()))
  _, scores = of_patches(pruning.dense(*qkv(dtype=jnp.bfloat16)))
  np.testing.assert_allclose(scores, expected, atol=0.02)
