"""The weight of each class in the loss: `criterion.class_weights`."""

import numpy as np

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown

BALANCED = "balanced"
_MOST_BYTES = 2**28  # of a file


def check(text, classes):
  """Raises InputError for a text that cannot be the weights of `classes` classes."""
  if text and text != BALANCED:
    _read(text, classes)


def of(text, classes, source):
  """The weights of the classes, in label order.

  Args:
    text: "" for none; "balanced" for images ÷ (classes · images of the class), by which all classes
      contribute equally, as in scikit-learn; comma-separated numbers; or a file with one number per
      line.
    classes: number of classes.
    source: the images to train on, whose labels are counted for "balanced".

  Returns:
    Tuple of floats; None for equal weights.

  Raises:
    InputError: another text, a wrong number of weights, or "balanced" for a class without images.
  """
  if not text:
    return None
  if text != BALANCED:
    return _read(text, classes)
  labels = getattr(source, "labels", None)
  if labels is None:  # reading the labels alone is not possible, so this reads all images
    labels = [source[i]["label"] for i in range(len(source))]
  counts = np.bincount(np.asarray(labels, int), minlength=classes)
  if not counts.all():
    empty = ", ".join(str(source.classes[i]) for i in np.flatnonzero(counts == 0)[:5])
    raise InputError(
      f"criterion.class_weights balanced: there is no training image of {empty}: give numbers"
    )
  return tuple((len(labels) / (classes * counts)).tolist())


def _read(text, classes):
  weights = _numbers(_in_file(text)) or _numbers(text.split(","))
  if len(weights) != classes or not all(0 <= w < np.inf for w in weights) or not sum(weights):
    raise InputError(
      f"criterion.class_weights {shown(text)}: expected balanced, or a number of at least 0 for "
      f"each of the {classes} classes, comma-separated or one per line of a file"
    )
  return weights


def _in_file(name):
  """The words of a text file; () if there is no such file, or it is not text."""
  try:
    return storage.read(name, _MOST_BYTES).decode().split()
  except InputError:
    raise
  except (OSError, ValueError):
    return ()


def _numbers(words):
  try:
    return tuple(float(word) for word in words)
  except ValueError:
    return ()
