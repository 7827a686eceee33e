"""What each class counts for in the loss: `criterion.class_weights`."""

import numpy as np

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown

BALANCED = "balanced"
_MOST_BYTES = 2**28  # of a file


def check(text, classes):
  """Raises InputError for what cannot be the weights of so many classes."""
  if text and text != BALANCED:
    _read(text, classes)


def of(text, classes, source):
  """The weights.

  Args:
    text: "" for none; "balanced" for images ÷ (classes · images of the class), which lets all
      classes count the same, as scikit-learn has it; numbers with commas between; or a file with a
      number a line; in label order.
    classes: number of classes.
    source: of the images to train on, whose labels are counted where `text` is "balanced".

  Returns:
    Tuple of floats, or None.

  Raises:
    InputError: something else, another number of them, or a class that has no image to balance by.
  """
  if not text:
    return None
  if text != BALANCED:
    return _read(text, classes)
  labels = getattr(source, "labels", None)
  if labels is None:  # the images with them, which takes as long as reading them
    labels = [source[i]["label"] for i in range(len(source))]
  counts = np.bincount(np.asarray(labels, int), minlength=classes)
  if not counts.all():
    empty = ", ".join(str(source.classes[i]) for i in np.flatnonzero(counts == 0)[:5])
    raise InputError(
      f"criterion.class_weights balanced: there is no image to train on of {empty}: give numbers"
    )
  return tuple((len(labels) / (classes * counts)).tolist())


def _read(text, classes):
  weights = _numbers(_in_file(text)) or _numbers(text.split(","))
  if len(weights) != classes or not all(0 <= w < np.inf for w in weights) or not sum(weights):
    raise InputError(
      f"criterion.class_weights {shown(text)}: expected balanced, or a number of at least 0 for "
      f"each of the {classes} classes, with commas between or a line each in a file"
    )
  return weights


def _in_file(name):
  """The words of a file; none where there is no such file, or no text in it."""
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
