"""Results for each class: the confusion matrix and accuracies."""

import json

import numpy as np

from asvit_jax.core import storage


def confusion_matrix(labels, predictions, classes):
  """(classes, classes) int: number of images of class i predicted as class j."""
  cells = np.asarray(labels, np.int64) * classes + np.asarray(predictions, np.int64)
  return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def accuracies(confusion):
  """(classes,) top-1 of each class in percent; NaN for classes without images."""
  images = confusion.sum(axis=1)
  with np.errstate(invalid="ignore"):
    return 100 * np.diagonal(confusion) / np.where(images, images, np.nan)


def mean_accuracy(confusion):
  """The mean top-1 over classes that have images, in percent, with equal weight for each class."""
  return float(np.nanmean(accuracies(confusion)))


def write(path, confusion, names):
  """Writes a line of JSON per class: `label`, `class`, `images`, `top1` and `predictions`.

  `predictions` is {label: number of images predicted as it}, a row of the confusion matrix.

  Args:
    path: path of the file.
    confusion: matrix of `confusion_matrix`.
    names: names of the classes by label, or None.

  Raises:
    InputError: the file cannot be written.
  """
  lines = []
  for label, (row, top1) in enumerate(zip(confusion, accuracies(confusion), strict=True)):
    line = {"label": label} | ({} if names is None else {"class": names[label]})
    line |= {"images": int(row.sum()), "top1": float(top1) if row.sum() else None}
    line["predictions"] = {int(j): int(row[j]) for j in np.flatnonzero(row)}
    lines.append(json.dumps(line) + "\n")
  storage.write(path, "".join(lines), "per-class results")
