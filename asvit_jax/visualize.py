"""Pictures of the tokens that a network keeps of an image; at the command line also curves.

python -m asvit_jax.visualize --workdir runs/as_deit_t_65 --out tokens.png [IMAGE ...]
python -m asvit_jax.visualize --workdir runs/as_deit_t_65 --curves --out curves.png
"""

import math
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from ml_collections import config_flags

from asvit_jax import checkpoint, cli, complexity, curves, evaluation
from asvit_jax import config as config_lib
from asvit_jax.curves import ACCENT, FRAME, TEXT
from asvit_jax.data import folder, loader, sources
from asvit_jax.errors import InputError
from asvit_jax.training import metrics

MAX_ROWS = 32  # of a picture; viewers give up on much taller ones
FADED = 0.15  # what is left of a pruned patch, the rest is white
_NAME = 18  # characters of a class name that fit under an image


def fade_pruned(image, keep):
  """Blends the pruned patches of an image with white.

  Args:
    image: (s, s, 3) uint8.
    keep: (n,) bool, the patches kept, row by row; n is a square whose side divides s.

  Returns:
    (s, s, 3) uint8; the kept patches are as they were.
  """
  side = math.isqrt(keep.size)
  patch = image.shape[0] // side
  kept = np.kron(keep.reshape(side, side), np.ones((patch, patch), bool))  # (s, s)
  faded = np.round(255 - FADED * (255.0 - image)).astype(np.uint8)
  return np.where(kept[..., None], image, faded)


def token_picture(images, keeps, titles, captions, boxes=None):
  """A row an image: the image, and what is left of it after every stage.

  Args:
    images: (b, s, s, 3) uint8, as the network sees them.
    keeps: (b, stages, n) bool, the patches that each stage keeps.
    titles: texts to stand above the 1 + stages columns.
    captions: for each image 1 + stages texts to stand under its row.
    boxes: (b, 4) relative (ymin, xmin, ymax, xmax) to draw on the images, or None.

  Returns:
    matplotlib `Figure` of b x (1 + stages) axes.
  """
  rows, columns, size = len(images), len(titles), images.shape[1]
  # In inches. Every pixel of an image becomes as many whole pixels of the picture, so that nearest
  # neighbours draw patches with sharp edges.
  cell, gap, margin, heading = 1.8, 0.12, 0.1, 0.28
  dpi = size * max(1, round(400 / size)) / cell
  caption = 0.12 + 0.14 * max(text.count("\n") + 1 for texts in captions for text in texts)
  width = columns * cell + (columns - 1) * gap + 2 * margin
  height = heading + rows * (cell + caption) + margin
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
      hspace=caption / cell,
    ),
  )
  for row, image, keep, texts in zip(grid, images, keeps, captions, strict=True):
    views = [image, *(fade_pruned(image, k) for k in keep)]
    for axes, view, text in zip(row, views, texts, strict=True):
      axes.imshow(view, interpolation="nearest")
      axes.set(xticks=[], yticks=[])
      axes.spines[:].set(color=FRAME, linewidth=0.5)
      axes.set_xlabel(
        text, fontsize=7.5, color=TEXT, labelpad=3, linespacing=1.25, parse_math=False
      )
  for axes, title in zip(grid[0], titles, strict=True):
    axes.set_title(title, fontsize=9, color=TEXT, pad=5)
  for axes, box in zip(grid[:, 0], boxes if boxes is not None else (), strict=False):
    ymin, xmin, ymax, xmax = np.asarray(box) * size - 0.5  # imshow centres pixels on whole numbers
    axes.add_patch(
      Rectangle((xmin, ymin), xmax - xmin, ymax - ymin, fill=False, color=ACCENT, linewidth=1.2)
    )
  return figure


def draw_tokens(arch, params, config, source):
  """Runs a pruned network on images and draws what it keeps of them.

  Args:
    arch: an `Architecture` that prunes.
    params: its parameters.
    config: a config; `data` and `model` are read.
    source: a `Source` of at most `MAX_ROWS` images; a label of -1 stands for unknown.

  Returns:
    The `Figure` of `token_picture`.

  Raises:
    InputError: an image that cannot be read, or classes that do not fit the network.
  """
  config = config.copy_and_resolve_references()
  devices = jax.local_device_count()
  config.eval.batch_size = math.ceil(len(source) / devices) * devices
  (batch,) = loader.eval_batches(config, source)
  step = evaluation.make_eval_step(arch, "masked", config.model.dtype)
  outputs = step(params, batch["image"])
  rows = {k: np.asarray(v)[batch["valid"]] for k, v in (batch | outputs).items()}
  gmacs = complexity.gmacs(arch, jnp.asarray(rows["keep"].sum(axis=-1), jnp.float32))
  captions = [
    _captions(source.classes, *values, complexity.dense_gmacs(arch))
    for values in zip(
      rows["top5"][:, 0],
      rows["probability"],
      rows["label"],
      rows["keep"],
      np.asarray(gmacs),
      strict=True,
    )
  ]
  titles = [f"stage {i} (before block {b})" for i, b in enumerate(arch.prune_before, 1)]
  return token_picture(rows["image"], rows["keep"], ["input", *titles], captions, rows.get("box"))


def draw_files(arch, params, config, paths, out):
  """Draws the tokens that a pruned network keeps of image files into a PNG file.

  Args:
    arch: an `Architecture` that prunes.
    params: its parameters.
    config: a config; `data` and `model` are read.
    paths: of at most `MAX_ROWS` images.
    out: the PNG file.

  Raises:
    InputError: too many images, one that cannot be read, or a file that cannot be written.
  """
  save(draw_tokens(arch, params, config, _images(config, paths, 0)), out)


def save(figure, path):
  """Writes a figure as PNG; all of it or nothing."""
  path = pathlib.Path(path)
  partial = path.with_name(path.name + ".partial")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(partial, format="png")
    os.replace(partial, path)
  except OSError as error:
    raise InputError(f"cannot write the picture to {path}: {error}") from error


class ImageFiles:
  """Image files without labels, as a `Source`.

  Args:
    paths: of the files.
    classes: names of the network's classes in label order.
  """

  def __init__(self, paths, classes):
    self.classes = tuple(classes)
    self._paths = tuple(paths)

  def __len__(self):
    return len(self._paths)

  def __getitem__(self, index):
    path = self._paths[index]
    try:
      image = pathlib.Path(path).read_bytes()
    except OSError as error:
      raise InputError(f"image {path} cannot be read ({error.strerror}): check the path") from error
    return {"image": image, "label": -1, "file": path}


def _captions(classes, prediction, probability, label, keep, gmacs, dense_gmacs):
  """The texts of a row: the prediction, and the label where it differs; patches kept; the cost."""
  mark = "" if label < 0 else "✓ " if prediction == label else "✗ "
  answer = f"{mark}{_short(classes[prediction])}  {100 * probability:.0f} %"
  if mark == "✗ ":
    answer += f"\nlabel {_short(classes[label])}"
  kept = [f"{stage.sum()} of {stage.size} patches" for stage in keep]
  kept[-1] += f"\n{gmacs:.3g} GMACs, {100 * gmacs / dense_gmacs:.0f} % of dense"
  return [answer, *kept]


def _short(name):
  return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _images(config, paths, count):
  """The files given, or evenly spaced images of the evaluation split."""
  if not 1 <= (len(paths) or count) <= MAX_ROWS:
    raise InputError(f"{len(paths) or count} images: expected 1 to {MAX_ROWS} in one picture")
  if paths:
    file = config.data.classes
    classes = folder.read_classes(file) if file else map(str, range(config.model.num_classes))
    return ImageFiles(paths, classes)
  return sources.Sample(
    sources.open_source(config.data, config.data.eval_split, allow_flat=True), count
  )


def _target_gmacs(config):
  if config.budget is None:
    return None
  return config.budget * complexity.dense_gmacs(config_lib.variant(config))


def define_flags():
  """The flags of the command line; not at import, where they would meet those of other tools."""
  config_flags.DEFINE_config_file(
    "config", None, "A file of configs/; by default the config of --workdir.", lock_config=True
  )
  flags.DEFINE_string("workdir", None, "The run to draw, or")
  flags.DEFINE_string("weights", None, "the .safetensors file whose tokens to draw.")
  flags.DEFINE_integer("count", 8, "Images of the evaluation split, where no files are given.")
  flags.DEFINE_bool("curves", False, "Draw the training curves of --workdir instead of tokens.")
  flags.DEFINE_string("out", None, "PNG file to write.")


def main(paths):
  """Draws; returns where to and how much."""
  given = flags.FLAGS
  if given.out is None or not given.out.lower().endswith(".png"):
    raise InputError(f"--out {given.out!r}: give the .png file to write the picture to")
  if given.curves:
    if given.workdir is None or given.weights is not None or paths:
      raise InputError("--curves draws the training of a run: give --workdir, no weights or images")
    lines = metrics.read(given.workdir)
    target = _target_gmacs(config_lib.load(given.workdir))
    figure = curves.draw_curves(lines, target, pathlib.Path(given.workdir).resolve().name)
    save(figure, given.out)
    return {"out": given.out, "steps": lines[-1]["step"]}
  config = config_lib.choose(given.config, given.workdir, given.weights)
  config_lib.check_evaluation(config)
  arch = config_lib.variant(config)
  source = _images(config, paths, given.count)
  path = given.workdir or given.weights
  params = checkpoint.load_weights(arch, path)
  if "thresholds" not in params:
    raise InputError(
      f"{path} has no thresholds, so it prunes nothing: set them with evaluate.py --calibrate "
      "BUDGET --save-weights FILE and draw that file with --weights"
    )
  save(draw_tokens(arch, params, config, source), given.out)
  return {"out": given.out, "images": len(source)}


if __name__ == "__main__":
  define_flags()
  cli.run(main, most=None)
