"""Pictures of how each stage decides about an image: scores, threshold, and pruned patches."""

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from asvit_jax.core.errors import InputError
from asvit_jax.report import naming
from asvit_jax.report.colors import ACCENT, FRAME, TEXT
from asvit_jax.report.tokens import fade_pruned

_KEPT, _LEAVES = "#2a6f97", "#b8c4cc"
_SIZE = 1.8  # width of each image in inches
_SMALL = {"fontsize": 7.5, "color": TEXT, **naming.PLAIN}


def draw_decisions(network, image):
  """Runs a pruned network on one image and draws the decision of each stage.

  Each stage is a column. At the top: the scores of the patches that are still present. In the
  middle: these scores in descending order, with the threshold. At the bottom: the patches that the
  stage keeps.

  Args:
    network: a `Network` that prunes by thresholds.
    image: (height, width, 3) uint8, preprocessed as by `Network.read`.

  Returns:
    matplotlib `Figure`; its axes are the image, then the three of each stage from top to bottom.

  Raises:
    InputError: the network does not prune.
  """
  if not network.prunes:
    raise InputError("the network has no thresholds, so no stage decides: calibrate it first")
  outputs = network(image[None], "masked")
  scores, keep = np.asarray(outputs.scores[0]), np.asarray(outputs.keep[0]) > 0
  thresholds = np.asarray(network.for_execution("masked").model.thresholds[...])
  stages, rows = len(keep), image.shape[0] / image.shape[1]
  # One pixel of the image is one of the picture, unless that is too small for text.
  figure = Figure(
    ((1.06 + stages * 1.16) * _SIZE, (2 * rows + 1.45) * _SIZE),
    dpi=max(100, image.shape[1] / _SIZE),
    layout="constrained",
  )
  grid = figure.add_gridspec(3, 1 + stages, height_ratios=[rows, 0.8, rows])
  _view(figure.add_subplot(grid[:, 0]), image, "input", f"{keep[0].size} patches")
  present = np.ones(keep[0].size, bool)
  for i, (of_all, goes_on) in enumerate(zip(scores, keep, strict=True)):
    top, middle, bottom = (figure.add_subplot(grid[row, 1 + i]) for row in range(3))
    title = f"stage {i + 1} (before block {network.arch.prune_before[i]})"
    _view(top, _map(of_all, present, image.shape), title, "scores")
    _in_order(middle, of_all[present], goes_on[present], thresholds[i])
    leave = int(present.sum() - goes_on.sum())
    _view(bottom, fade_pruned(image, goes_on), "", f"{leave} leave, {goes_on.sum()} go on")
    present = goes_on
  return figure


def _map(scores, present, shape):
  """The scores on the grid of patches; pruned patches are masked."""
  side = np.sqrt(shape[0] * shape[1] / scores.size)
  return np.ma.masked_where(~present, scores).reshape(round(shape[0] / side), -1)


def _view(axes, image, title, caption):
  """Draws an image, or a map of scores, with text above and below."""
  scale = {}
  if image.ndim == 2:
    colors = colormaps["viridis"].with_extremes(bad="white")
    scale = {"cmap": colors, "norm": _logarithmic(image)}
  axes.imshow(image, interpolation="nearest", **scale)
  axes.set(xticks=[], yticks=[])
  axes.spines[:].set(color=FRAME, linewidth=0.5)
  axes.set_xlabel(caption, labelpad=3, **_SMALL)
  axes.set_title(title, pad=4, **_SMALL)


def _in_order(axes, scores, keep, threshold):
  """Draws the scores of the present patches in descending order, and the threshold."""
  order = np.argsort(-scores, kind="stable")
  ordered, places = scores[order], np.arange(1, len(order) + 1)
  for goes_on, color in ((True, _KEPT), (False, _LEAVES)):
    there = keep[order] == goes_on
    axes.bar(places[there], ordered[there], width=1.0, color=color)
  axes.axhline(threshold, color=ACCENT, linewidth=1)
  axes.set(yscale="log" if len(ordered) and (ordered > 0).all() else "linear")
  axes.margins(x=0)
  axes.set_xlabel(f"threshold {threshold:.3g}", labelpad=2, fontsize=7.5, color=ACCENT)
  axes.tick_params(labelsize=6, labelcolor=TEXT, color=FRAME)
  axes.minorticks_off()
  axes.spines[:].set(color=FRAME, linewidth=0.5)


def _logarithmic(scores):
  """The colour scale of the scores; None if they are not all positive."""
  there = scores.compressed()
  positive = there.size and there.min() > 0
  return LogNorm(there.min(), there.max()) if positive else None
