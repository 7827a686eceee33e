"""Draws docs/dial.png, one network at many budgets.

for B in 0.4 0.45 0.5 …; do python evaluate.py --weights DIAL --budget $B … > dial_$B.json; done
python docs/draw_dial.py 83.3 dial_*.json      # the dense network's top-1, and what was printed
"""

import json
import pathlib
import sys

from matplotlib.figure import Figure


def draw(dense, results):
  """The figure: top-1 and patches kept against the share of the dense GMACs.

  Args:
    dense: top-1 of the dense network, percent.
    results: what `evaluate.py` printed for every budget.
  """
  results = sorted(results, key=lambda result: result["share"])
  shares = [result["share"] for result in results]
  figure = Figure((7.2, 3.2), dpi=160, layout="constrained")
  axes, stages = figure.subplots(1, 2, width_ratios=(3, 2))
  axes.axhline(dense, color="#999999", linewidth=1)
  axes.annotate("dense", (0.4, dense), (0, 3), textcoords="offset points", fontsize=8)
  axes.plot(shares, [result["top1"] for result in results], "o-", color="#2a6f97", markersize=4)
  axes.set(xlabel="share of the dense GMACs", ylabel="top-1, %", xlim=(0.38, 1.02))
  axes.set_ylim(min(result["top1"] for result in results) - 1, dense + 3)
  for result, color in zip(results, _colors(len(results)), strict=True):
    kept = [stage["mean"] for stage in result["kept"]]
    stages.plot(range(1, len(kept) + 1), kept, color=color, linewidth=1)
  stages.set(xlabel="stage", ylabel="patches kept", ylim=(0, None))
  stages.set_title(f"{shares[0]:.2f} (dark) to {shares[-1]:.2f} of dense", fontsize=8)
  for ax in (axes, stages):
    ax.grid(color="#eeeeee")
    ax.tick_params(labelsize=8)
  return figure


def _colors(count):
  from matplotlib import colormaps

  return [colormaps["viridis"](0.9 * i / max(count - 1, 1)) for i in range(count)]


if __name__ == "__main__":
  lines = [pathlib.Path(name).read_text().splitlines()[-1] for name in sys.argv[2:]]
  figure = draw(float(sys.argv[1]), [json.loads(line) for line in lines])
  figure.savefig(pathlib.Path(__file__).with_name("dial.png"))
