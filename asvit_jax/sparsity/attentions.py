"""Attentions: how tokens attend to each other, for every token layout of the executions.

An attention is an object with three methods. Each takes (b, n, h, c) queries, keys and values,
token 0 being the class token, and returns the (b, n, h, c) context of every token and the (b, n, h)
float32 attention of the class token to every token. Softmax is float32 for any compute type. There
may be fewer queries than keys: then they belong to the first tokens, and only these get a context.

  dense(q, k, v, bias=None): every token attends to every token.
  masked(q, k, v, keep, bias=None): kept tokens attend to kept tokens; `keep` is (b, n) float32, 1
    for kept tokens and the class token, and gradients reach it. The context of pruned tokens must
    be finite, and is ignored.
  prefix(q, k, v, count, bias=None): the first `count` (b,) tokens of every image attend to each
    other; the context of the remaining tokens is undefined.

Networks whose prediction does not read the class token, `Architecture.pool`, ask all three for
`received=True`. The second result is then the (b, n, h) attention that every token receives: the
mean over the queries, of the tokens that are there.

`bias`, (b, n) float32, is added to the logits of every key: for merged tokens, the logarithm of the
number of patches that a token stands for.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core.parts import Table

# The mass that pruned tokens share, so that the softmax of a token that sees nothing is defined.
EPSILON = 1e-6
# Bounds exp() at pruned keys, which may exceed every kept one. They are multiplied by zero, so the
# bound changes no output, only the gradient that reaches the mask: e^5 at most. Without it, one key
# that dominates in a network of saturated attention outweighs everything else that thresholds feel
# for a thousand steps of Adam. On photographs no pruned key of the real DeiT-T was 5 above.
MAX_LOGIT = 5.0


class Softmax:
  """Softmax attention; its methods are those of `attentions`."""

  def dense(self, q, k, v, bias=None, received=False):
    """Every token attends to every token."""
    logits = _logits(q, k, bias)
    there = jnp.ones(q.shape[:2], jnp.float32) if received else None
    return _attend(jnp.exp(logits - logits.max(axis=-1, keepdims=True)), v, there=there)

  def masked(self, q, k, v, keep, bias=None, received=False):
    """Kept tokens attend to kept tokens; shapes stay fixed and gradients reach the mask.

    The mask multiplies the numerators of the softmax, `(e·m + ε/n) / (Σ e·m + ε)`, which is how
    DynamicViT (arXiv:2106.02034, Eq. 11) and Adaptive Sparse ViT train. The exponent is taken
    relative to the largest *kept* logit, so a pruned token never moves a kept one by more than ε
    however large its own logit is. A pruned token still attends to itself, so its row is finite.
    """
    n = k.shape[1]
    logits = _logits(q, k, bias)  # (b, h, q, n)
    visible = jnp.where(np.eye(q.shape[1], n, dtype=bool), 1.0, keep[:, None, None, :])
    peak = jnp.max(jnp.where(visible > 0, logits, -jnp.inf), axis=-1, keepdims=True)
    peak = jax.lax.stop_gradient(peak)
    mass = jnp.exp(jnp.minimum(logits - peak, MAX_LOGIT)) * visible
    # Among the readers a token counts or does not; no gradient makes it one.
    there = jax.lax.stop_gradient(keep)[:, : q.shape[1]] if received else None
    return _attend(mass, v, EPSILON, there)

  def prefix(self, q, k, v, count, bias=None, received=False):
    """The first `count` tokens attend to each other; later keys are masked out."""
    valid = jnp.arange(k.shape[1]) < count[:, None]  # (b, n)
    logits = _logits(q, k, jnp.where(valid, 0.0 if bias is None else bias, -jnp.inf))
    there = valid[:, : q.shape[1]].astype(jnp.float32) if received else None
    return _attend(jnp.exp(logits - logits.max(axis=-1, keepdims=True)), v, there=there)


softmax = Softmax()


def _attend(mass, v, epsilon=0.0, there=None):
  """The (b, q, h, c) context of the queries, and the (b, k, h) attention of the class token.

  Args:
    mass: (b, h, q, k) float32 numerators of the softmax.
    v: (b, k, h, c) values.
    epsilon: additional mass, spread evenly over all keys.
    there: (b, q) mask of the queries; if given, the second result is the attention received from
      them, the mean.
  """
  total = mass.sum(axis=-1, keepdims=True) + epsilon  # (b, h, q, 1)
  # Divided by after the product, which is the smaller array.
  context = jnp.einsum("bhqk,bkhc->bqhc", mass.astype(v.dtype), v)
  if epsilon:
    context += epsilon * v.mean(axis=1, keepdims=True)
  context = (context / jnp.swapaxes(total, 1, 2)).astype(v.dtype)
  if there is None:
    return context, _class_row((mass[:, :, :1] + epsilon / v.shape[1]) / total[:, :, :1])
  weights = (there / there.sum(axis=1, keepdims=True))[:, None, :, None] / total  # (b, h, q, 1)
  received = (weights * (mass + epsilon / v.shape[1])).sum(axis=2)  # (b, h, k)
  return context, jnp.swapaxes(received, 1, 2)


def _logits(q, k, bias=None):
  """(b, q, h, c), (b, k, h, c), (b, k) -> (b, h, q, k), float32 whatever the compute type."""
  scale = q.shape[-1] ** -0.5
  logits = jnp.einsum("bqhc,bkhc->bhqk", q * scale, k, preferred_element_type=jnp.float32)
  return logits if bias is None else logits + bias[:, None, None, :]


def _class_row(attention):
  """(b, h, q, n) attention whose first row is the class token's -> (b, n, h)."""
  return jnp.swapaxes(attention[:, :, 0], 1, 2)


# Parts of users may import `Softmax` from this name, too.
sys.modules[f"{__name__}.softmax"] = sys.modules[__name__]

ATTENTIONS = Table("attention", "model.attention", {"softmax": softmax})
