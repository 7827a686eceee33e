"""Top-1 of several methods, against GMACs and against images per second."""

import itertools

from matplotlib import ticker
from matplotlib.figure import Figure

from asvit_jax.report import naming
from asvit_jax.report.colors import FRAME, TEXT

# Okabe and Ito's, which everybody can tell apart, and two greys; markers tell them apart, too.
_COLORS = (
  *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a6d00"),
  *("#777777", "#aaaaaa"),
)
_MARKERS = "osD^vP*X<"


def draw_comparison(results, title):
  """A panel for each set of weights against GMACs, and where it was timed one against images/s.

  The lines of methods whose count adapts to the image are thicker.

  Args:
    results: of `comparison.running.Comparison.run`: `dense`, a dictionary of `top1`, `gmacs` and
      perhaps `images_per_s`; and `results`, those of methods, with `method`, `budget` and
      `finetuned`.
    title: of the picture.

  Returns:
    matplotlib `Figure`.
  """
  rows = results["results"]
  methods = list(dict.fromkeys(row["method"] for row in rows))
  tuned = [row for row in rows if row["finetuned"]]
  plain = [row for row in rows if not row["finetuned"]]
  panels = [("without training", plain, "gmacs")]
  if tuned:
    panels.append(("fine-tuned", tuned, "gmacs"))
  if "images_per_s" in results["dense"]:
    panels.append(("without training", plain, "images_per_s"))
  figure = Figure((4.2 * len(panels) + 1.5, 4.2), dpi=160, layout="constrained")
  figure.suptitle(naming.name(title), fontsize=11, color=TEXT, **naming.PLAIN)
  axes = None
  for i, (name, shown, axis) in enumerate(panels, 1):
    axes = figure.add_subplot(1, len(panels), i, sharey=axes)  # top-1 compares across panels
    _draw(axes, results["dense"], shown, methods, axis)
    axes.set_title(name, fontsize=9, color=TEXT)
  handles, labels = axes.get_legend_handles_labels()
  legend = figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
  naming.plain_legend(legend)
  return figure


def _draw(axes, dense, rows, methods, axis):
  axes.axhline(dense["top1"], color=FRAME, linestyle="--", linewidth=1)
  axes.plot(dense[axis], dense["top1"], "*", color=TEXT, markersize=9, label="dense")
  styles = zip(methods, itertools.cycle(_COLORS), itertools.cycle(_MARKERS), strict=False)
  for method, color, marker in styles:
    ours = [row for row in rows if row["method"] == method]
    points = sorted((row[axis], row["top1"]) for row in ours)
    adaptive = any("thresholds" in row for row in ours)
    axes.plot(
      *zip(*points, strict=True),
      marker=marker,
      color=color,
      linewidth=2.2 if adaptive else 1.2,
      markersize=5,
      label=naming.name(method),
    )
  axes.set_xlabel({"gmacs": "GMACs an image", "images_per_s": "images/s"}[axis], fontsize=8)
  axes.set_ylabel("top-1, %", fontsize=8, color=TEXT)
  axes.spines[["top", "right"]].set_visible(False)
  axes.spines[:].set_color(FRAME)
  axes.grid(color="#eeeeee", linewidth=0.8)
  axes.set_axisbelow(True)
  axes.tick_params(labelsize=8, color=FRAME, labelcolor=TEXT)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
