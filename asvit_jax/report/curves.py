"""Pictures of the curves of a training run."""

import functools
import itertools
import math

import numpy as np
from matplotlib import colormaps, ticker
from matplotlib.figure import Figure

from asvit_jax.config import identity
from asvit_jax.config.parts import NETWORK
from asvit_jax.config.plan import unchecked
from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.losses.terms import LOSSES
from asvit_jax.report import naming
from asvit_jax.report.colors import ACCENT, FRAME, TEXT
from asvit_jax.run import metrics

_LOSS, _FIRST = "#222222", "#0072b2"
# Okabe and Ito's colours, safe for colour-blind readers, in the order of `LOSSES`; they repeat.
_COLORS = (_FIRST, "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


def draw_run(workdir, parts=()):
  """`draw_curves` for the run in a workdir.

  Args:
    workdir: workdir of `train`.
    parts: names of the user's own parts that its config may use, see `identity.load`.

  Returns:
    matplotlib `Figure`, and the last step of the run.

  Raises:
    InputError: the workdir has no run, or a run without a training step.
  """
  lines, plan = metrics.read(workdir), unchecked(identity.load(workdir, parts, NETWORK))
  path = storage.path(workdir)
  title = (path if storage.in_bucket(path) else path.resolve()).name
  return draw_curves(lines, plan.target_gmacs, title), lines[-1]["step"]


def draw_curves(lines, target_gmacs=None, title=""):
  """Draws the curves of a training run, with a panel for each kind of metric.

  Args:
    lines: lines of `metrics.read`.
    target_gmacs: the target of training in GMACs, or None for a dense network.
    title: title of the picture: the name of the run.

  Returns:
    matplotlib `Figure`.

  Raises:
    InputError: the lines contain no training step.
  """
  train = _alike([line for line in lines if line["kind"] == "train"])
  evals = _alike([line for line in lines if line["kind"] == "eval"])
  if not train:
    raise InputError(
      f"run {title!r} has no training metrics yet: let train.py reach its first log_every steps"
    )
  panels = [functools.partial(_draw_loss, train=train)]
  if evals:
    panels += [functools.partial(_draw_top1, evals=evals)]
  if {"gmacs", "kept", "thresholds"} <= train[0].keys():
    panels += [
      functools.partial(_draw_gmacs, train=train, evals=evals, target=target_gmacs),
      functools.partial(_draw_kept, train=train, evals=evals),
      functools.partial(_draw_thresholds, train=train),
    ]
  if "lr" in train[0]:
    panels += [functools.partial(_draw_learning_rate, train=train)]

  columns = min(3, len(panels))
  rows = math.ceil(len(panels) / columns)
  figure = Figure((3.6 * columns, 2.7 * rows + 0.3), dpi=160, layout="constrained")
  figure.suptitle(naming.name(title), fontsize=11, color=TEXT, **naming.PLAIN)
  for i, draw in enumerate(panels, 1):
    axes = figure.add_subplot(rows, columns, i)
    draw(axes)
    _tidy(axes, lines[-1]["step"])
  return figure


def _alike(lines):
  """The lines with the same fields as the first: a file may be damaged, or of two versions."""

  def form(line):
    return {k: len(v) if isinstance(v, list) else 0 for k, v in line.items()}

  return [line for line in lines if form(lines[0]).items() <= form(line).items()]


def _draw_loss(axes, train):
  colors = {"loss": _LOSS} | dict(zip(LOSSES, itertools.cycle(_COLORS), strict=False))
  terms = [name for name in colors if name in train[0]]
  if len(terms) == 2:  # a dense network: its only term equals the loss
    terms = ["loss"]
  for name in terms:
    steps, values = _series(train, name)
    axes.plot(steps, values, color=colors[name], alpha=0.25, linewidth=0.8)
    axes.plot(steps, _smooth(values), color=colors[name], linewidth=1.4, label=name)
  axes.set_title("training loss")
  if len(terms) > 1:
    axes.set_title("training loss and its terms, unweighted")
    axes.set_yscale("log", nonpositive="mask")  # the terms are orders of magnitude apart


def _draw_top1(axes, evals):
  steps, values = _series(evals, "top1")
  axes.plot(steps, values, "o-", color=_FIRST, linewidth=1.4, markersize=3.5)
  axes.set_title(f"evaluation: top-1, % (last {values[-1]:.2f})")


def _draw_gmacs(axes, train, evals, target):
  axes.plot(*_series(train, "gmacs"), color=_FIRST, linewidth=1, label="training")
  if evals:
    axes.plot(*_series(evals, "gmacs"), "o", color=TEXT, markersize=3.5, label="evaluation")
  if target is not None:
    axes.axhline(target, color=ACCENT, linestyle="--", linewidth=1.2, label=f"target {target:.3g}")
  axes.set_title("GMACs per image")


def _draw_kept(axes, train, evals):
  _draw_stages(axes, *_series(train, "kept"))
  axes.set_title("patches kept by each stage")
  if evals:
    means = np.array([[stage["mean"] for stage in line["kept"]] for line in evals])
    _draw_stages(axes, [line["step"] for line in evals], means, "o")
    axes.set_title("patches kept by each stage (dots: evaluation)")


def _draw_thresholds(axes, train):
  _draw_stages(axes, *_series(train, "thresholds"))
  axes.set_title("threshold of each stage")


def _draw_learning_rate(axes, train):
  axes.plot(*_series(train, "lr"), color=TEXT, linewidth=1.4)
  axes.set_title("learning rate")


def _draw_stages(axes, steps, values, style="-"):
  """Draws every column of (steps, stages) values in its stage's colour."""
  colors = colormaps["viridis"](np.linspace(0.1, 0.8, values.shape[1]))
  for stage, (column, color) in enumerate(zip(values.T, colors, strict=True), 1):
    label = f"stage {stage}" if style == "-" else None
    axes.plot(steps, column, style, color=color, linewidth=1.2, markersize=3.5, label=label)


def _series(lines, name):
  # Conversion to float turns the null of a skipped step into NaN.
  return np.array([line["step"] for line in lines]), np.array([line[name] for line in lines], float)


def _smooth(values):
  """Mean over a centred window of a twentieth of the run, truncated at both ends."""
  half = len(values) // 40
  return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


def _tidy(axes, last_step):
  axes.title.set(fontsize=9, color=TEXT)
  axes.set_xlabel("step", fontsize=8, color=TEXT)
  axes.set_xlim(0, 1.02 * last_step)
  if axes.get_yscale() == "linear":
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    axes.yaxis.get_offset_text().set(size=8, color=TEXT)
  axes.spines[["top", "right"]].set_visible(False)
  axes.spines[:].set_color(FRAME)
  axes.grid(color="#eeeeee", linewidth=0.8)
  axes.set_axisbelow(True)
  axes.tick_params(labelsize=8, color=FRAME, labelcolor=TEXT)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
  axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
  if axes.get_legend_handles_labels()[1]:
    naming.plain_legend(axes.legend(fontsize=8, framealpha=0.8, edgecolor="none"))
