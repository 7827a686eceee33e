"""How far predictions are from labels: what the classification term means, `criterion.name`.

A criterion is a function of

  logits: (..., classes) float32.
  targets: (..., classes) float32 soft labels, of a shape that broadcasts to that of the logits.
  weights: (classes,) float32, what each class counts for.

and of what `criterion.arguments` may give it by name; it returns the loss of each prediction, (...)
float32, whose mean is minimised.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from asvit_jax.core import keywords
from asvit_jax.core.errors import InputError
from asvit_jax.core.parts import Table
from asvit_jax.core.printable import shown

_OURS = ("logits", "targets", "weights")


def cross_entropy(logits, targets, weights=1.0):
  """Of softmax; weighted as PyTorch weighs soft labels, without dividing by the weights' sum."""
  return optax.softmax_cross_entropy(logits, targets * weights)


def focal(logits, targets, weights=1.0, gamma=2.0):
  """Cross-entropy that counts less the surer a prediction is right (arXiv:1708.02002), of softmax.

  Each class's part of the cross-entropy is multiplied by (1 - p)^gamma; 0 is cross-entropy.
  """
  likelihood = jax.nn.log_softmax(logits)
  # 1 - p of the class, from the others: near p = 1 the difference would be rounding, and 0 to a
  # power below 1 has no gradient.
  missing = jnp.maximum(-jnp.expm1(likelihood), jnp.finfo(jnp.float32).tiny)
  return -(weights * targets * missing**gamma * likelihood).sum(axis=-1)


def bce(logits, targets, weights=1.0, target_threshold=None, sum_classes=False):
  """Binary cross-entropy of every class by itself, as DeiT III has it (arXiv:2204.07118).

  Args:
    logits: see above.
    targets: see above.
    weights: see above.
    target_threshold: makes labels above it 1 and others 0, such as 0.0 for both of a mixed image;
      None leaves them soft.
    sum_classes: the sum over classes instead of the mean.
  """
  if target_threshold is not None:
    targets = (targets > target_threshold).astype(logits.dtype)
  each = weights * optax.sigmoid_binary_cross_entropy(logits, targets)
  return each.sum(axis=-1) if sum_classes else each.mean(axis=-1)


CRITERIA = Table(
  "criterion", "criterion.name", {"cross_entropy": cross_entropy, "focal": focal, "bce": bce}
)


class Criterion:
  """A criterion with its arguments and the weights of classes.

  Args:
    name: of `CRITERIA`.
    arguments: dictionary of its keyword arguments.
    weights: (classes,), or None where all count the same.
  """

  def __init__(self, name="cross_entropy", arguments=None, weights=None):
    self._function, self._arguments = CRITERIA[name], dict(arguments or {})
    self._weights = 1.0 if weights is None else np.asarray(weights, np.float32)

  def __call__(self, logits, targets):
    """The mean over all predictions, () float32; arguments as above, of any floating type."""
    logits, targets = logits.astype(jnp.float32), targets.astype(jnp.float32)
    return self._function(logits, targets, self._weights, **self._arguments).mean()


CROSS_ENTROPY = Criterion()


def check(options):
  """Raises InputError unless the criterion of a plan can be run; it is tried on shapes.

  Args:
    options: `Plan.criterion`.
  """
  keywords.check(CRITERIA[options.name], options.arguments, "criterion.arguments", _OURS)
  shape = jax.ShapeDtypeStruct((2, 3), jnp.float32)
  try:
    criterion = Criterion(options.name, options.arguments, (1.0, 2.0, 1.0))
    found = jax.eval_shape(criterion, shape, shape)
  except Exception as error:  # there is no saying what a value that does not fit raises
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    raise InputError(
      f"criterion.name {shown(options.name)} cannot be run with criterion.arguments "
      f"{shown(dict(options.arguments))} ({said}): check them, or choose another"
    ) from error
  if found.shape or not jnp.issubdtype(found.dtype, jnp.floating):
    raise InputError(
      f"criterion.name {shown(options.name)} does not give one number for each prediction"
    )


def smooth_labels(labels, classes, smoothing):
  """(b,) int labels -> (b, classes) float32 targets with label smoothing."""
  return optax.smooth_labels(jax.nn.one_hot(labels, classes, dtype=jnp.float32), smoothing)
