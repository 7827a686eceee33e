"""Top-1 of several methods and their divergence from the dense network, against what they cost."""

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
  """Panels against GMACs for each set of weights, and where it was timed against the speed-up.

  Top-1 is above, and below it the divergence from the dense network where that was measured. The
  lines of methods whose count adapts to the image are thicker.

  Args:
    results: of `comparison.running.Comparison.run`: `dense`, a dictionary of `top1` and `gmacs`,
      and `results`, those of methods, with `method`, `budget` and `finetuned`, and perhaps `kl` and
      `speedup`, times the dense network's speed in the same rounds.
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
  if any("speedup" in row for row in plain):
    panels.append(("without training", [row for row in plain if "speedup" in row], "speedup"))
  measures = ["top1", *(["kl"] if all("kl" in row for row in rows) else [])]
  height = 4.2 if len(measures) == 1 else 6.4
  figure = Figure((4.2 * len(panels) + 1.5, height), dpi=160, layout="constrained")
  figure.suptitle(naming.name(title), fontsize=11, color=TEXT, **naming.PLAIN)
  dense = results["dense"] | {"speedup": 1.0}
  axes = None
  for line, measure in enumerate(measures):
    first = None
    for i, (name, shown, axis) in enumerate(panels, 1):
      place = line * len(panels) + i
      axes = figure.add_subplot(len(measures), len(panels), place, sharey=first)
      first = first or axes  # what is measured compares across panels
      _draw(axes, dense, shown, methods, axis, measure)
      if not line:
        axes.set_title(name, fontsize=9, color=TEXT)
  handles, labels = figure.axes[0].get_legend_handles_labels()
  legend = figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
  naming.plain_legend(legend)
  return figure


_LABELS = {
  "gmacs": "GMACs an image",
  "speedup": "times the dense network's speed",
  "top1": "top-1, %",
  "kl": "KL from dense, nats",
}


def _draw(axes, dense, rows, methods, axis, measure):
  if measure == "top1":
    axes.axhline(dense["top1"], color=FRAME, linestyle="--", linewidth=1)
    axes.plot(dense[axis], dense["top1"], "*", color=TEXT, markersize=9, label="dense")
  else:
    axes.set_yscale("log")
  styles = zip(methods, itertools.cycle(_COLORS), itertools.cycle(_MARKERS), strict=False)
  for method, color, marker in styles:
    ours = [row for row in rows if row["method"] == method]
    if not ours:
      continue
    points = sorted((row[axis], row[measure]) for row in ours)
    adaptive = any("thresholds" in row for row in ours)
    axes.plot(
      *zip(*points, strict=True),
      marker=marker,
      color=color,
      linewidth=2.2 if adaptive else 1.2,
      markersize=5,
      label=naming.name(method),
    )
  axes.set_xlabel(_LABELS[axis], fontsize=8)
  axes.set_ylabel(_LABELS[measure], fontsize=8, color=TEXT)
  axes.spines[["top", "right"]].set_visible(False)
  axes.spines[:].set_color(FRAME)
  axes.grid(color="#eeeeee", linewidth=0.8)
  axes.set_axisbelow(True)
  axes.tick_params(labelsize=8, color=FRAME, labelcolor=TEXT)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
