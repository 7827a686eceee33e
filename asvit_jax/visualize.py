"""Pictures: the tokens that a network keeps of an image, and the curves of a training run.

python -m asvit_jax.visualize --workdir runs/as_deit_t_65 --out tokens.png [IMAGE ...]
python -m asvit_jax.visualize --workdir runs/as_deit_t_65 --curves --out curves.png
"""

import functools
import math
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib import colormaps, ticker
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from ml_collections import config_flags

from asvit_jax import checkpoint, cli, complexity, evaluation
from asvit_jax import config as config_lib
from asvit_jax.data import folder, loader, sources
from asvit_jax.errors import InputError
from asvit_jax.training import metrics

MAX_ROWS = 32  # of a picture; viewers give up on much taller ones
FADED = 0.15  # what is left of a pruned patch, the rest is white
_TEXT, _FRAME, _ACCENT = "#333333", "#bbbbbb", "#d1495b"
_TERMS = {"loss": "#222222", "classification": "#0072b2", "distillation": "#009e73"}
_TERMS |= {"budget": "#d55e00", "token_distillation": "#cc79a7"}
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
      axes.spines[:].set(color=_FRAME, linewidth=0.5)
      axes.set_xlabel(
        text, fontsize=7.5, color=_TEXT, labelpad=3, linespacing=1.25, parse_math=False
      )
  for axes, title in zip(grid[0], titles, strict=True):
    axes.set_title(title, fontsize=9, color=_TEXT, pad=5)
  for axes, box in zip(grid[:, 0], boxes if boxes is not None else (), strict=False):
    ymin, xmin, ymax, xmax = np.asarray(box) * size - 0.5  # imshow centres pixels on whole numbers
    axes.add_patch(
      Rectangle((xmin, ymin), xmax - xmin, ymax - ymin, fill=False, color=_ACCENT, linewidth=1.2)
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


def draw_curves(lines, target_gmacs=None, title=""):
  """The curves of a training run; a panel for everything that its metrics hold.

  Args:
    lines: of `metrics.read`.
    target_gmacs: the GMACs that training aims at, or None for a dense network.
    title: of the picture: the name of the run.

  Returns:
    matplotlib `Figure`.

  Raises:
    InputError: no training step is among the lines.
  """
  train = [line for line in lines if line["kind"] == "train"]
  evals = [line for line in lines if line["kind"] == "eval"]
  if not train:
    raise InputError(
      f"run {title!r} has no training metrics yet: let train.py reach its first log_every steps"
    )
  panels = [functools.partial(_draw_loss, train=train)]
  if evals:
    panels += [functools.partial(_draw_top1, evals=evals)]
  if "gmacs" in train[0]:
    panels += [
      functools.partial(_draw_gmacs, train=train, evals=evals, target=target_gmacs),
      functools.partial(_draw_kept, train=train, evals=evals),
      functools.partial(_draw_thresholds, train=train),
    ]
  panels += [functools.partial(_draw_learning_rate, train=train)]

  columns = min(3, len(panels))
  rows = math.ceil(len(panels) / columns)
  figure = Figure((3.6 * columns, 2.7 * rows + 0.3), dpi=160, layout="constrained")
  figure.suptitle(title, fontsize=11, color=_TEXT)
  for i, draw in enumerate(panels, 1):
    axes = figure.add_subplot(rows, columns, i)
    draw(axes)
    _tidy(axes, lines[-1]["step"])
  return figure


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


def _draw_loss(axes, train):
  terms = [name for name in _TERMS if name in train[0]]
  if len(terms) == 2:  # a dense network: the one term is the loss
    terms = ["loss"]
  for name in terms:
    steps, values = _series(train, name)
    axes.plot(steps, values, color=_TERMS[name], alpha=0.25, linewidth=0.8)
    axes.plot(steps, _smooth(values), color=_TERMS[name], linewidth=1.4, label=name)
  axes.set_title("training loss")
  if len(terms) > 1:
    axes.set_title("training loss and its terms, unweighted")
    axes.set_yscale("log", nonpositive="mask")  # the terms are orders of magnitude apart


def _draw_top1(axes, evals):
  steps, values = _series(evals, "top1")
  axes.plot(steps, values, "o-", color=_TERMS["classification"], linewidth=1.4, markersize=3.5)
  axes.set_title(f"evaluation: top-1, % (last {values[-1]:.2f})")


def _draw_gmacs(axes, train, evals, target):
  axes.plot(*_series(train, "gmacs"), color=_TERMS["classification"], linewidth=1, label="training")
  if evals:
    axes.plot(*_series(evals, "gmacs"), "o", color=_TEXT, markersize=3.5, label="evaluation")
  if target is not None:
    axes.axhline(target, color=_ACCENT, linestyle="--", linewidth=1.2, label=f"target {target:.3g}")
  axes.set_title("GMACs an image")


def _draw_kept(axes, train, evals):
  _draw_stages(axes, *_series(train, "kept"))
  axes.set_title("patches kept by each stage")
  if evals:
    steps, kept = _series(evals, "kept")
    means = np.array([[stage["mean"] for stage in stages] for stages in kept])
    _draw_stages(axes, steps, means, "o")
    axes.set_title("patches kept by each stage (dots: evaluation)")


def _draw_thresholds(axes, train):
  _draw_stages(axes, *_series(train, "thresholds"))
  axes.set_title("threshold of each stage")


def _draw_learning_rate(axes, train):
  axes.plot(*_series(train, "lr"), color=_TEXT, linewidth=1.4)
  axes.set_title("learning rate")


def _draw_stages(axes, steps, values, style="-"):
  """Draws every column of (steps, stages) values in the colour of its stage."""
  colors = colormaps["viridis"](np.linspace(0.1, 0.8, values.shape[1]))
  for stage, (column, color) in enumerate(zip(values.T, colors, strict=True), 1):
    label = f"stage {stage}" if style == "-" else None
    axes.plot(steps, column, style, color=color, linewidth=1.2, markersize=3.5, label=label)


def _series(lines, name):
  return np.array([line["step"] for line in lines]), np.array([line[name] for line in lines])


def _smooth(values):
  """Mean over a centred window of a twentieth of the run, cut off at both ends."""
  half = len(values) // 40
  return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


def _tidy(axes, last_step):
  axes.title.set(fontsize=9, color=_TEXT)
  axes.set_xlabel("step", fontsize=8, color=_TEXT)
  axes.set_xlim(0, 1.02 * last_step)
  if axes.get_yscale() == "linear":
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    axes.yaxis.get_offset_text().set(size=8, color=_TEXT)
  axes.spines[["top", "right"]].set_visible(False)
  axes.spines[:].set_color(_FRAME)
  axes.grid(color="#eeeeee", linewidth=0.8)
  axes.set_axisbelow(True)
  axes.tick_params(labelsize=8, color=_FRAME, labelcolor=_TEXT)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
  axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
  if axes.get_legend_handles_labels()[1]:
    axes.legend(fontsize=8, frameon=False)


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
    save(draw_curves(lines, target, pathlib.Path(given.workdir).resolve().name), given.out)
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
