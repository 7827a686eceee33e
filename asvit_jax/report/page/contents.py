"""The parts of a page; all but the title are optional."""

import base64
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tile:
  """A number shown prominently at the top.

  Attributes:
    label: name of the number.
    value: the number as text, with its unit.
    note: a value to compare with; shown small, below it.
  """

  label: str
  value: str
  note: str = ""


@dataclasses.dataclass(frozen=True)
class Point:
  """A measurement: `x` and `y` in the units of the chart's axes, `note` for its tooltip."""

  x: float
  y: float
  note: str = ""


@dataclasses.dataclass(frozen=True)
class Series:
  """Points under one name, such as the budgets of one method; connected by a line if `joined`.

  `errors` are half the lengths of error bars at the points, in the unit of `y`; empty for no bars.
  """

  name: str
  points: tuple[Point, ...]
  joined: bool = True
  errors: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Chart:
  """A chart of several series.

  Attributes:
    title: title of the chart.
    x: label of the horizontal axis, with its unit.
    y: label of the vertical axis, with its unit.
    series: the series, in the order of the legend.
    level: (name, y) of a horizontal reference line, such as the dense network's; or None.
    log_y: whether the vertical axis is logarithmic; points that are not positive are then omitted.
  """

  title: str
  x: str
  y: str
  series: tuple[Series, ...]
  level: tuple[str, float] | None = None
  log_y: bool = False


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of a table: numbers with `digits` decimals, or text if `digits` is None."""

  name: str
  digits: int | None = None


@dataclasses.dataclass(frozen=True)
class Table:
  """A table that the reader can sort by any column; cells are text, numbers or None."""

  title: str
  columns: tuple[Column, ...]
  rows: tuple[tuple[str | float | None, ...], ...]


@dataclasses.dataclass(frozen=True)
class Picture:
  """An image and the networks' results for it.

  Attributes:
    file: name of the file.
    label: class of the image; -1 if unknown.
    prediction: class that the network predicts.
    probability: predicted probability of this class, in [0, 1].
    gmacs: cost of the image.
    keep: the patches that each stage keeps, as `pack_masks` encodes them.
    jpeg: the network's input as the bytes of a JPEG file.
    dense: (prediction, probability) of the dense network; None if it was not run.
  """

  file: str
  label: int
  prediction: int
  probability: float
  gmacs: float
  keep: str
  jpeg: bytes
  dense: tuple[int, float] | None = None


@dataclasses.dataclass(frozen=True)
class Gallery:
  """Pictures and their common properties.

  Attributes:
    pictures: the pictures, in the order of the data.
    classes: names by label, at least of all labels and predictions that occur.
    stages: a name for each stage, such as "before block 4"; empty for a dense network.
    grid: (rows, columns) of patches.
    dense_gmacs: cost of an image without pruning.
    merges: whether patches were merged into kept ones instead of dropped.
  """

  pictures: tuple[Picture, ...]
  classes: dict[int, str]
  stages: tuple[str, ...]
  grid: tuple[int, int]
  dense_gmacs: float
  merges: bool = False


@dataclasses.dataclass(frozen=True)
class Page:
  """A page: a title, facts below it, and its contents from top to bottom."""

  title: str
  summary: tuple[str, ...] = ()
  tiles: tuple[Tile, ...] = ()
  charts: tuple[Chart, ...] = ()
  tables: tuple[Table, ...] = ()
  gallery: Gallery | None = None


def pack_masks(keep):
  """Encodes masks as text: base64 of their bits, by stage and row, most significant bit first.

  Args:
    keep: (stages, n) bool.

  Returns:
    The text; "" if there are no stages.
  """
  return base64.b64encode(np.packbits(np.asarray(keep, bool).reshape(-1)).tobytes()).decode()


def unpack_masks(text, stages, patches):
  """Decodes the text of `pack_masks` to (stages, n) bool masks."""
  bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))
  return bits[: stages * patches].reshape(stages, patches).astype(bool)
