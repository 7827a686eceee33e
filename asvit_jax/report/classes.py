"""Tables of single classes for a page: their accuracy and their confusions."""

import numpy as np

from asvit_jax.evaluation.per_class import accuracies
from asvit_jax.report.page.contents import Column, Table

_MOST_COLUMNS = 30  # of a confusion matrix that is shown completely
_MOST_PAIRS = 200


def tables(confusion, names=None):
  """The `Table`s of a confusion matrix.

  Args:
    confusion: matrix of `per_class.confusion_matrix`.
    names: names of the classes by label, or None.

  Returns:
    Tuple of two tables: the classes; and the whole matrix or, if there are many classes, the most
    frequent confusions.
  """
  names = [str(label) for label in range(len(confusion))] if names is None else list(names)
  wrong = confusion.copy()
  np.fill_diagonal(wrong, 0)
  by_class = Table(
    "Classes",
    (
      Column("class"),
      Column("images", 0),
      Column("top-1, %", 1),
      Column("most often predicted as"),
      Column("times", 0),
    ),
    tuple(
      (
        name,
        int(images),
        float(top1) if images else None,
        names[row.argmax()] if row.any() else None,
        int(row.max()) if row.any() else None,
      )
      for name, images, top1, row in zip(
        names, confusion.sum(axis=1), accuracies(confusion), wrong, strict=True
      )
    ),
  )
  return by_class, _matrix(confusion, names) if len(names) <= _MOST_COLUMNS else _pairs(
    wrong, names
  )


def _matrix(confusion, names):
  columns = (Column("class"), *(Column(f"as {name}", 0) for name in names))
  rows = ((name, *map(int, row)) for name, row in zip(names, confusion, strict=True))
  return Table("Confusion matrix: images of each class by prediction", columns, tuple(rows))


def _pairs(wrong, names):
  count = min(_MOST_PAIRS, np.count_nonzero(wrong))
  cells = np.argsort(-wrong, axis=None, kind="stable")[:count]
  pairs = zip(*np.unravel_index(cells, wrong.shape), strict=True)
  columns = (Column("class"), Column("predicted as"), Column("images", 0))
  rows = ((names[i], names[j], int(wrong[i, j])) for i, j in pairs)
  return Table("Most frequent confusions", columns, tuple(rows))
