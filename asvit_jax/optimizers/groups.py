"""Groups of parameters, by name, that an optimizer treats differently."""

import re

import jax.numpy as jnp
import optax

from asvit_jax.core import leaves
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown


def decay_mask(params):
  """A tree of bool: True for parameters with weight decay, the kernels of linear layers and convs.

  Biases, norms, the class token, the position embedding and the thresholds have none.
  """
  return leaves.map_named(lambda name, _: name.rpartition(".")[2] == "kernel", params)


def check_frozen(params, pattern):
  """Raises InputError if `optimizer.freeze`, a regular expression, matches no parameter's name."""
  if pattern and not any(re.search(pattern, name) for name, _ in leaves.named(params)):
    raise InputError(
      f"optimizer.freeze {shown(pattern)} matches no parameter: names are like "
      "'blocks.0.attn.qkv.kernel'"
    )


def without_key_biases():
  """An optax transformation that zeroes the gradients of key biases.

  A key bias shifts all attention logits of a query equally, which the softmax cancels. Its gradient
  is only rounding error, which Adam would scale up to full steps that depend on the number of
  devices. It does not cancel where keys are rotated or normalised; networks with rotary positions
  have no bias of keys, and so keep none.
  """

  def still(name, grad):
    if name.endswith("qkv.bias"):
      third = grad.shape[0] // 3  # query, key and value biases
      return grad.at[third : 2 * third].set(0)
    if name == "attn_pool.kv.bias":
      return grad.at[: grad.shape[0] // 2].set(0)
    return grad

  return optax.stateless(lambda updates, _: leaves.map_named(still, updates))


def is_frozen(name, freeze):
  """Whether `optimizer.freeze`, a regular expression or "", matches a parameter's name."""
  return bool(freeze and re.search(freeze, name))


def without_frozen(grads, freeze):
  """Replaces the gradients of frozen parameters by zeros."""
  return leaves.map_named(lambda n, g: jnp.zeros_like(g) if is_frozen(n, freeze) else g, grads)


def clipped(norm, freeze):
  """An optax transformation that clips gradients to a global norm.

  Frozen parameters do not count in the norm, as they would shrink the steps of the others.

  Args:
    norm: largest norm of unclipped gradients.
    freeze: regular expression of the frozen parameters, whose gradients become 0; "" for none.
  """
  clip = optax.clip_by_global_norm(norm)
  if not freeze:
    return clip

  def update(updates, state, params=None):
    return clip.update(without_frozen(updates, freeze), state, params)

  return optax.GradientTransformation(clip.init, update)


def scaled(thresholds, freeze, layer_decay=1.0):
  """An optax transformation that scales updates per group of parameters.

  Args:
    thresholds: factor of the thresholds' updates.
    freeze: regular expression of frozen parameters, whose updates become 0; "" for none.
    layer_decay: the other parameters' updates are multiplied by it to the power of
      `layers_below_head`.
  """

  def scaled_by(depth):
    def scale(name, update):
      if is_frozen(name, freeze):
        return jnp.zeros_like(update)
      if name == "thresholds":
        return update * thresholds
      return update * layer_decay ** layers_below_head(name, depth)

    return scale

  def update(updates, _):
    blocks = [block_of(name) for name, _ in leaves.named(updates)]
    return leaves.map_named(scaled_by(1 + max(blocks)), updates)

  return optax.stateless(update)


def layers_below_head(name, depth):
  """The number of layers between a parameter and the head, as in timm's layer-wise decay.

  It is 0 for heads and an attention pooling, 1 for the final norm and the last block, and `depth` +
  1 for the stem, the class token and the position embedding, one more than for the first of the
  `depth` blocks.
  """
  block = block_of(name)
  if block >= 0:
    return depth - block
  section = name.partition(".")[0]
  if "head" in section or section == "attn_pool":
    return 0
  return 1 if section in ("norm", "fc_norm") else depth + 1


def block_of(name):
  """The index of a parameter's block; -1 for parameters outside of blocks."""
  found = re.match(r"blocks\.(\d+)\.", name)
  return int(found[1]) if found else -1
