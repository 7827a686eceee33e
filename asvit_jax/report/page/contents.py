"""What a page can hold; every part but the title may be left out."""

import base64
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tile:
  """A number to stand out at the top.

  Attributes:
    label: what it is.
    value: the number, written out with its unit.
    note: what to compare it with; small, under it.
  """

  label: str
  value: str
  note: str = ""


@dataclasses.dataclass(frozen=True)
class Point:
  """A measurement: `x` and `y` in the units of its chart's axes, `note` for its tooltip."""

  x: float
  y: float
  note: str = ""


@dataclasses.dataclass(frozen=True)
class Series:
  """Points that go by one name, such as the budgets of one method; a line where `joined`.

  `errors` are half the lengths of bars at the points, in the unit of `y`; none without them.
  """

  name: str
  points: tuple[Point, ...]
  joined: bool = True
  errors: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Chart:
  """A diagram of series.

  Attributes:
    title: of the diagram.
    x: text of the horizontal axis, with its unit.
    y: text of the vertical axis, with its unit.
    series: in the order of the legend.
    level: (name, y) of a horizontal line to compare with, such as the dense network; or None.
    log_y: whether the vertical axis is logarithmic; points that are not above 0 are left out then.
  """

  title: str
  x: str
  y: str
  series: tuple[Series, ...]
  level: tuple[str, float] | None = None
  log_y: bool = False


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of a table: numbers with so many decimals, or text where `digits` is None."""

  name: str
  digits: int | None = None


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of a text, a number or None a column; the reader can sort them by any column."""

  title: str
  columns: tuple[Column, ...]
  rows: tuple[tuple[str | float | None, ...], ...]


@dataclasses.dataclass(frozen=True)
class Picture:
  """An image, and what networks made of it.

  Attributes:
    file: its name.
    label: its class; -1 where unknown.
    prediction: class that the network says.
    probability: that it gives this class, in [0, 1].
    gmacs: that it took.
    keep: of `pack_masks`: the patches that each stage kept.
    jpeg: the image as the network saw it, a JPEG file's bytes.
    dense: (prediction, probability) of the same network without pruning; None where it does not
      prune, or was not asked.
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
  """Pictures, and what they have in common.

  Attributes:
    pictures: in the order of the data.
    classes: names by label, of at least the labels and predictions that occur.
    stages: a name for each stage, such as "before block 4"; none for a network that does not prune.
    grid: rows and columns of patches.
    dense_gmacs: of an image without pruning.
    merges: whether patches that are not kept were merged into kept ones, and not dropped.
  """

  pictures: tuple[Picture, ...]
  classes: dict[int, str]
  stages: tuple[str, ...]
  grid: tuple[int, int]
  dense_gmacs: float
  merges: bool = False


@dataclasses.dataclass(frozen=True)
class Page:
  """A page: title, a line of facts under it, and what it shows from top to bottom."""

  title: str
  summary: tuple[str, ...] = ()
  tiles: tuple[Tile, ...] = ()
  charts: tuple[Chart, ...] = ()
  tables: tuple[Table, ...] = ()
  gallery: Gallery | None = None


def pack_masks(keep):
  """Masks as text: base64 of their bits, stage after stage, row by row, the first bit highest.

  Args:
    keep: (stages, n) bool.

  Returns:
    The text; "" without stages.
  """
  return base64.b64encode(np.packbits(np.asarray(keep, bool).reshape(-1)).tobytes()).decode()


def unpack_masks(text, stages, patches):
  """The (stages, n) bool masks of which `pack_masks` made a text."""
  bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))
  return bits[: stages * patches].reshape(stages, patches).astype(bool)
