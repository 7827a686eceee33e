"""Parameters that an optimizer treats apart, by their names."""

import re

import jax.numpy as jnp
import optax

from asvit_jax.core import leaves
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown


def decay_mask(params):
  """True for what weight decay shrinks: the kernels of linear layers and convolutions.

  Biases, norms, the class token, the position embedding and the thresholds are left alone.
  """
  return leaves.map_named(lambda name, _: name.rpartition(".")[2] == "kernel", params)


def check_frozen(params, pattern):
  """Raises InputError where `optimizer.freeze`, a regular expression, is found in no parameter."""
  if pattern and not any(re.search(pattern, name) for name, _ in leaves.named(params)):
    raise InputError(
      f"optimizer.freeze {shown(pattern)} is found in no parameter: names are like "
      "'blocks.0.attn.qkv.kernel'"
    )


def without_key_biases():
  """Takes out the gradients of key biases, as an optax transformation.

  A key bias moves all logits of a query alike, which softmax ignores. What is left of its gradient
  is rounding, which Adam would scale up to full steps that differ between numbers of devices.
  """

  def still(name, grad):
    if name.endswith("qkv.bias"):
      third = grad.shape[0] // 3  # query, key and value biases
      return grad.at[third : 2 * third].set(0)
    return grad

  return optax.stateless(lambda updates, _: leaves.map_named(still, updates))


def is_frozen(name, freeze):
  """Whether `optimizer.freeze`, a regular expression or "", is found in a parameter's name."""
  return bool(freeze and re.search(freeze, name))


def without_frozen(grads, freeze):
  """Gradients with zeros for what is frozen."""
  return leaves.map_named(lambda n, g: jnp.zeros_like(g) if is_frozen(n, freeze) else g, grads)


def clipped(norm, freeze):
  """Clips gradients to a global norm, as an optax transformation.

  What is frozen counts for nothing in the norm: it would make the steps of the rest smaller.

  Args:
    norm: the largest that passes as it is.
    freeze: regular expression of the frozen parameters, whose gradients become 0; "" for none.
  """
  clip = optax.clip_by_global_norm(norm)
  if not freeze:
    return clip

  def update(updates, state, params=None):
    return clip.update(without_frozen(updates, freeze), state, params)

  return optax.GradientTransformation(clip.init, update)


def scaled(thresholds, freeze, layer_decay=1.0):
  """Scales updates, as an optax transformation.

  Args:
    thresholds: factor of the thresholds' update.
    freeze: regular expression; the updates of parameters that it is found in become 0.
    layer_decay: factor of the other parameters' updates to the power of `layers_below_head`.
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
  """How many layers a parameter is away from the head, in timm's groups for layer-wise decay.

  Heads are 0; the last norm goes with the last block, 1; the stem, the class token and the position
  embedding are one layer below the first of the `depth` blocks.
  """
  block = block_of(name)
  if block >= 0:
    return depth - block
  section = name.partition(".")[0]
  if "head" in section:
    return 0
  return 1 if section == "norm" else depth + 1


def block_of(name):
  """The number of the block that a parameter is in; -1 for those that are in none."""
  found = re.match(r"blocks\.(\d+)\.", name)
  return int(found[1]) if found else -1
