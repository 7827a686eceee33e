"""Pictures of the tokens that a network keeps of an image."""

import math

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import printable
from asvit_jax.data import loader
from asvit_jax.data.images import ImageFiles
from asvit_jax.data.sources import Sample
from asvit_jax.evaluation.one_pass import classify
from asvit_jax.report import naming
from asvit_jax.report.colors import ACCENT, FRAME, TEXT

MAX_ROWS = 32  # of a picture; image viewers fail on much taller ones
FADED = 0.15  # opacity of a pruned patch on white
_NAME = 18  # characters of a class name that fit under an image


def fade_pruned(image, keep):
  """Blends the pruned patches of an image with white.

  Args:
    image: (height, width, 3) uint8.
    keep: (n,) bool, whether each patch is kept, row by row; n squares tile the image.

  Returns:
    (height, width, 3) uint8; kept patches are unchanged.
  """
  height, width = image.shape[:2]
  patch = math.isqrt(height * width // keep.size)
  grid = keep.reshape(height // patch, width // patch)
  kept = np.kron(grid, np.ones((patch, patch), bool))  # (height, width)
  faded = np.round(255 - FADED * (255.0 - image)).astype(np.uint8)
  return np.where(kept[..., None], image, faded)


def token_picture(images, keeps, titles, captions, boxes=None):
  """Draws a row per image: the image, and its patches that each stage keeps.

  Args:
    images: (b, height, width, 3) uint8, as the network sees them.
    keeps: (b, stages, n) bool, whether each stage keeps a patch.
    titles: texts above the 1 + stages columns.
    captions: for each image, 1 + stages texts under its row.
    boxes: (b, 4) relative (ymin, xmin, ymax, xmax) to draw on the images, or None.

  Returns:
    matplotlib `Figure` of b x (1 + stages) axes.
  """
  rows, columns, (size_y, size_x) = len(images), len(titles), images.shape[1:3]
  # In inches. Every pixel of an image becomes a whole number of pixels in the picture, so that
  # nearest neighbour interpolation draws patches with sharp edges.
  cell, gap, margin, heading = 1.8, 0.12, 0.1, 0.28
  dpi = size_x * max(1, round(400 / size_x)) / cell
  cell_y = cell * size_y / size_x
  caption = 0.12 + 0.14 * max(text.count("\n") + 1 for texts in captions for text in texts)
  width = columns * cell + (columns - 1) * gap + 2 * margin
  height = heading + rows * (cell_y + caption) + margin
  figure = Figure((width, height), dpi=dpi)
  grid = figure.subplots(
    rows,
    columns,
    squeeze=False,
    gridspec_kw=dict(
      left=margin / width,
      right=1 - margin / width,
      top=1 - heading / height,
      bottom=(margin + caption) / height,
      wspace=gap / cell,
      hspace=caption / cell_y,
    ),
  )
  for row, image, keep, texts in zip(grid, images, keeps, captions, strict=True):
    views = [image, *(fade_pruned(image, k) for k in keep)]
    for axes, view, text in zip(row, views, texts, strict=True):
      axes.imshow(view, interpolation="nearest")
      axes.set(xticks=[], yticks=[])
      axes.spines[:].set(color=FRAME, linewidth=0.5)
      axes.set_xlabel(
        printable(text), fontsize=7.5, color=TEXT, labelpad=3, linespacing=1.25, **naming.PLAIN
      )
  for axes, title in zip(grid[0], titles, strict=True):
    axes.set_title(naming.name(title), fontsize=9, color=TEXT, pad=5, **naming.PLAIN)
  for axes, box in zip(grid[:, 0], boxes if boxes is not None else (), strict=False):
    # imshow centres pixels at integers.
    ymin, xmin, ymax, xmax = np.asarray(box) * (size_y, size_x, size_y, size_x) - 0.5
    axes.add_patch(
      Rectangle((xmin, ymin), xmax - xmin, ymax - ymin, fill=False, color=ACCENT, linewidth=1.2)
    )
  return figure


def draw_tokens(network, plan, source, execution="masked", count=None):
  """Runs a pruned network on images and draws the tokens that it keeps.

  Args:
    network: a `Network` that prunes.
    plan: a `Plan`; `data` is read.
    source: a `Source`, of at most `MAX_ROWS` images unless `count` is given; its classes name the
      labels, and a label of -1 means unknown.
    execution: masked or fixed.
    count: number of images to draw, evenly spaced; by default all.

  Returns:
    The `Figure` of `token_picture`.

  Raises:
    InputError: there are too many images, one cannot be read, or the classes are not the network's.
  """
  check_rows(len(source) if count is None else count)
  source = source if count is None else Sample(source, count)
  devices = jax.local_device_count()
  plan = plan.replace(**{"eval.batch_size": math.ceil(len(source) / devices) * devices})
  (batch,) = loader.eval_batches(plan, source, network.preprocessing)
  outputs = classify(network, batch["image"], execution)
  rows = {k: np.asarray(v)[batch["valid"]] for k, v in (batch | outputs).items()}
  captions = [
    _captions(source.classes if network.arch.classifies else None, *values, network.dense_gmacs)
    for values in zip(
      rows["top5"][:, 0],
      rows["probability"],
      rows["label"],
      rows["keep"],
      network.gmacs(rows["keep"].sum(axis=-1)),
      strict=True,
    )
  ]
  titles = [f"stage {i} (before block {b})" for i, b in enumerate(network.arch.prune_before, 1)]
  return token_picture(rows["image"], rows["keep"], ["input", *titles], captions, rows.get("box"))


def draw_files(network, plan, paths, out, execution="masked"):
  """Draws the tokens that a pruned network keeps of image files into a PNG file.

  Args:
    network: a `Network` that prunes.
    plan: a `Plan`; `data` is read.
    paths: paths of at most `MAX_ROWS` images.
    out: the PNG file.
    execution: masked or fixed.

  Raises:
    InputError: there are too many images, one cannot be read, or the PNG cannot be written.
  """
  check_rows(len(paths))
  storage.check_file(out, "the picture")
  plan = plan.replace(**{"data.exif_orientation": True})  # as in `predict`
  classes = network.classes or map(str, range(network.arch.classes))
  save(draw_tokens(network, plan, ImageFiles(paths, classes), execution), out)


def check_rows(count):
  """Raises InputError unless a picture can show this number of images."""
  if not 1 <= count <= MAX_ROWS:
    raise InputError(f"{count} images: expected 1 to {MAX_ROWS} in one picture")


def save(figure, path):
  """Writes a figure as PNG, atomically."""
  with storage.replacing(path, "the picture") as partial, naming.any_signs():
    figure.savefig(partial, format="png")


def _captions(classes, prediction, probability, label, keep, gmacs, dense_gmacs):
  """The texts of a row: the prediction, and the label if it differs; the kept patches; the cost.

  Without classes there is no prediction.
  """
  answer = ""
  if classes is not None:
    mark = "" if label < 0 else "✓ " if prediction == label else "✗ "
    answer = f"{mark}{naming.name(classes[prediction], _NAME)}  {100 * probability:.0f} %"
    if mark == "✗ ":
      answer += f"\nlabel {naming.name(classes[label], _NAME)}"
  kept = [f"{stage.sum()} of {stage.size} patches" for stage in keep]
  kept[-1] += f"\n{gmacs:.3g} GMACs, {100 * gmacs / dense_gmacs:.0f} % of dense"
  return [answer, *kept]
