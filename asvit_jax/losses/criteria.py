"""Criteria of the classification term, the loss between predictions and labels: `criterion.name`.

A criterion is a function of

  logits: (..., classes) float32.
  targets: (..., classes) float32 soft labels, of a shape that broadcasts to that of the logits.
  weights: (classes,) float32, the weight of each class.

and of keyword arguments of its own, `criterion.arguments`. It returns the loss of each prediction,
(...) float32, whose mean is minimized.
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
  """Softmax cross-entropy; as in PyTorch for soft labels, not divided by the sum of the weights."""
  return optax.softmax_cross_entropy(logits, targets * weights)


def focal(logits, targets, weights=1.0, gamma=2.0):
  """Focal loss (arXiv:1708.02002) of softmax: cross-entropy with less weight on confident classes.

  Each class's term of the cross-entropy is multiplied by (1 - p)^gamma; gamma 0 is cross-entropy.
  """
  likelihood = jax.nn.log_softmax(logits)
  # 1 - p by expm1, which is exact near p = 1. The minimum keeps the gradient finite: that of 0 to a
  # power below 1 is not.
  missing = jnp.maximum(-jnp.expm1(likelihood), jnp.finfo(jnp.float32).tiny)
  return -(weights * targets * missing**gamma * likelihood).sum(axis=-1)


def bce(logits, targets, weights=1.0, target_threshold=None, sum_classes=False):
  """Binary cross-entropy of every class, as in DeiT III (arXiv:2204.07118).

  Args:
    logits: (..., classes).
    targets: (..., classes) soft labels.
    weights: (classes,) weight of each class.
    target_threshold: labels above it become 1, and others 0; 0.0 sets both labels of a mixed image
      to 1; None leaves labels soft.
    sum_classes: whether to sum over classes instead of averaging.
  """
  if target_threshold is not None:
    targets = (targets > target_threshold).astype(logits.dtype)
  each = weights * optax.sigmoid_binary_cross_entropy(logits, targets)
  return each.sum(axis=-1) if sum_classes else each.mean(axis=-1)


CRITERIA = Table(
  "criterion", "criterion.name", {"cross_entropy": cross_entropy, "focal": focal, "bce": bce}
)


class Criterion:
  """A criterion with its keyword arguments and class weights.

  Args:
    name: a name of `CRITERIA`, or `package.module:object`.
    arguments: dictionary of its keyword arguments.
    weights: (classes,) weight of each class; None for equal weights.
  """

  def __init__(self, name="cross_entropy", arguments=None, weights=None):
    self._function, self._arguments = CRITERIA[name], dict(arguments or {})
    self._weights = 1.0 if weights is None else np.asarray(weights, np.float32)

  def __call__(self, logits, targets):
    """The mean loss over all predictions.

    Args:
      logits: (..., classes) of any floating type.
      targets: (..., classes) soft labels of any floating type.

    Returns:
      () float32.
    """
    logits, targets = logits.astype(jnp.float32), targets.astype(jnp.float32)
    return self._function(logits, targets, self._weights, **self._arguments).mean()


CROSS_ENTROPY = Criterion()


def check(options):
  """Raises InputError if the criterion of a plan fails, which is tried on shapes.

  Args:
    options: `Plan.criterion`.
  """
  keywords.check(CRITERIA[options.name], options.arguments, "criterion.arguments", _OURS)
  shape = jax.ShapeDtypeStruct((2, 3), jnp.float32)
  try:
    criterion = Criterion(options.name, options.arguments, (1.0, 2.0, 1.0))
    found = jax.eval_shape(criterion, shape, shape)
  except Exception as error:  # an invalid value may raise anything
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    raise InputError(
      f"criterion.name {shown(options.name)} cannot be run with criterion.arguments "
      f"{shown(dict(options.arguments))} ({said}): check them, or choose another"
    ) from error
  if found.shape or not jnp.issubdtype(found.dtype, jnp.floating):
    raise InputError(
      f"criterion.name {shown(options.name)} does not return one number for each prediction"
    )


def smooth_labels(labels, classes, smoothing):
  """(b,) int labels -> (b, classes) float32 targets with label smoothing."""
  return optax.smooth_labels(jax.nn.one_hot(labels, classes, dtype=jnp.float32), smoothing)
