"""Pictures of a comparison: top-1 and divergence from the dense network against cost."""

import itertools

from matplotlib import ticker
from matplotlib.figure import Figure

from asvit_jax.report import naming
from asvit_jax.report.colors import FRAME, TEXT
from asvit_jax.report.results import NORMAL_95

# Okabe and Ito's colours, safe for colour-blind readers, and two greys; markers differ, too.
_COLORS = (
  *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a6d00"),
  *("#777777", "#aaaaaa"),
)
_MARKERS = "osD^vP*X<"


def draw_comparison(results, title):
  """Panels against GMACs for each kind of weights, and one against speed-up if it was measured.

  Against GMACs, top-1 is above and the divergence from the dense network, if measured, below.
  Against speed-up, the panel shows the divergence with the 95 % intervals of its means, or top-1 if
  there is no divergence. Methods that adapt the number of tokens to the image have thicker lines.

  Args:
    results: results of `comparison.running.Comparison.run`: `dense`, a dictionary with `top1` and
      `gmacs`, and `results`, dictionaries of the methods with `method`, `budget` and `finetuned`,
      and optionally `kl`, its standard error `kl_error`, and `speedup`, the speed divided by the
      dense network's in the same rounds.
    title: title of the picture.

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
  diverged = bool(rows) and all("kl" in row for row in rows)
  timed = [row for row in plain if "speedup" in row]
  lines = 2 if diverged else 1
  columns = len(panels) + bool(timed)
  figure = Figure((4.2 * columns + 1.5, 6.4 if diverged else 4.2), dpi=160, layout="constrained")
  figure.suptitle(naming.name(title), fontsize=11, color=TEXT, **naming.PLAIN)
  grid = figure.add_gridspec(lines, columns)
  dense = results["dense"] | {"speedup": 1.0}
  for line, measure in enumerate(("top1", "kl")[:lines]):
    first = None
    for i, (name, shown, axis) in enumerate(panels):
      axes = figure.add_subplot(grid[line, i], sharey=first)
      first = first or axes  # a shared axis makes panels comparable
      _draw(axes, dense, shown, methods, axis, measure)
      if not line:
        axes.set_title(name, fontsize=9, color=TEXT)
    if timed and not diverged:
      axes = figure.add_subplot(grid[0, -1], sharey=first)
      _draw(axes, dense, timed, methods, "speedup", "top1")
      axes.set_title("without training", fontsize=9, color=TEXT)
  if timed and diverged:
    axes = figure.add_subplot(grid[:, -1])
    _draw(axes, dense, timed, methods, "speedup", "kl")
    _draw_intervals(axes, timed, methods)
    axes.set_xlabel("speed-up over the dense network (timed in turn)", fontsize=8)
    axes.set_ylabel("KL from the dense network, nats", fontsize=8, color=TEXT)
    axes.set_title(
      "Divergence against measured speed, without training\n"
      "(lower is better; bars: 95 % of the mean)",
      fontsize=9,
      color=TEXT,
    )
  handles, labels = figure.axes[0].get_legend_handles_labels()
  legend = figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
  naming.plain_legend(legend)
  return figure


def _draw_intervals(axes, rows, methods):
  """Error bars: 95 % intervals of the mean divergences, clipped to stay positive."""
  for method, (color, _) in _styles(methods):
    for row in rows:
      error = row.get("kl_error")
      if row["method"] == method and error and row["kl"] > 0:
        below = min(NORMAL_95 * error, 0.9 * row["kl"])
        bar = [[below], [NORMAL_95 * error]]
        point = [row["speedup"]], [row["kl"]]
        axes.errorbar(*point, bar, fmt="none", ecolor=color, elinewidth=1, capsize=2.5)


def _styles(methods):
  """(method, (colour, marker)) of each method."""
  return zip(methods, zip(itertools.cycle(_COLORS), itertools.cycle(_MARKERS)), strict=False)


_LABELS = {
  "gmacs": "GMACs per image",
  "speedup": "speed-up over the dense network",
  "top1": "top-1, %",
  "kl": "KL from dense, nats",
}


def _draw(axes, dense, rows, methods, axis, measure):
  if measure == "top1":
    axes.axhline(dense["top1"], color=FRAME, linestyle="--", linewidth=1)
    axes.plot(dense[axis], dense["top1"], "*", color=TEXT, markersize=9, label="dense")
  else:
    axes.set_yscale("log")
  for method, (color, marker) in _styles(methods):
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
