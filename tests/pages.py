"""Pages for the tests of `report.page`: images that nobody took, of every outcome."""

import io

import numpy as np
from PIL import Image

from asvit_jax.report.page import jpeg
from asvit_jax.report.page.contents import (
  Chart,
  Column,
  Gallery,
  Page,
  Picture,
  Point,
  Series,
  Table,
  Tile,
  pack_masks,
)

# Names as users may give them: what would end a script, load something, or run.
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked=1'> & \u2028 ü"
CLASSES = {0: "ant", 1: "bee", 2: "crane", 3: "crane", 4: EVIL}
STAGES = ("before block 2", "before block 4", "before block 8")
GRID = (12, 16)  # a rectangle of square patches


def masks(rng):
  """(stages, n) bool; what a stage drops stays dropped."""
  scores = rng.random(GRID[0] * GRID[1])
  return np.stack([scores > threshold for threshold in sorted(rng.random(len(STAGES)))])


def noise(rng, size=224):
  """The image that compresses worst."""
  return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)


def plain(colour, size=4):
  """A JPEG file of one colour, of so many pixels a patch."""
  file = io.BytesIO()
  Image.new("RGB", (size * GRID[1], size * GRID[0]), colour).save(file, "JPEG", quality=95)
  return file.getvalue()


def picture(rng, index, image=None, compared=True):
  """A `Picture` whose label, predictions and cost are drawn."""
  keep = masks(rng)
  label, said, dense = (int(n) for n in rng.integers(0, len(CLASSES), 3))
  # As good as networks are, so that every outcome occurs.
  said = label if rng.random() < 0.5 else said
  dense = label if rng.random() < 0.5 else dense
  return Picture(
    file=f"{EVIL}.jpg" if index == 0 else f"class {label}/image_{index}.jpg",
    label=label,
    prediction=said,
    probability=float(rng.random()),
    gmacs=float(0.3 + 0.9 * keep.mean()),
    keep=pack_masks(keep) if compared else "",
    jpeg=plain((200, 40, 40)) if image is None else jpeg.encode(image),
    dense=(dense, float(rng.random())) if compared else None,
  )


def gallery(count, noisy=False, compared=True, merges=True):
  """A `Gallery` of so many pictures, the same ones every time."""
  rng = np.random.default_rng(7)
  pictures = tuple(
    picture(rng, index, noise(rng) if noisy else None, compared) for index in range(count)
  )
  return Gallery(pictures, CLASSES, STAGES if compared else (), GRID, 1.25, merges)


def page(count=90, **options):
  """A `Page` with everything that there is."""
  series = (
    Series("merge", (Point(50.0, 78.1, "budget 0.5"), Point(65.0, 80.2, "budget 0.65"))),
    Series(EVIL, (Point(50.0, 62.7), Point(65.0, 77.9))),
    Series("dense", (Point(100.0, 81.1),)),
  )
  columns = (Column("network"), Column("top-1, %", 2), Column("images", 0))
  rows = ((EVIL, 62.7, 1000), ("dense", 81.1, None), ("merge", 78.1, 900))
  return Page(
    title=f"A page {EVIL}",
    summary=("90 images", EVIL),
    tiles=(Tile("Top-1", "78.1 %", EVIL),),
    charts=(Chart("Accuracy", "share, %", "top-1, %", series, ("dense", 81.1)),),
    tables=(Table("Results", columns, rows),),
    gallery=gallery(count, **options),
  )
