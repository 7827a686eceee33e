"""Draws docs/packing.png: python docs/draw_packing.py."""

import pathlib

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

TOKENS = 10
KEPT = ([0, 1, 2, 4, 7, 8, 9], [0, 5], [0, 2, 3, 6, 8, 9], [0, 3, 7])  # 0 is the class token
GROUPS = ((1, 3), (2, 0))  # sorted by how many tokens they keep
RUNGS = (4, 8)  # the widths that these groups run at
COLORS = colormaps["viridis"](np.array([0.12, 0.4, 0.65, 0.9]))
RED = "#d1495b"


def draw():
  """The figure: a ragged batch, sorted, in two groups of their own widths."""
  figure = Figure((9.2, 2.1), dpi=160, layout="constrained")
  axes = figure.add_subplot()
  axes.set(xlim=(-0.2, 27.2), ylim=(-1.2, 5.2), aspect="equal")
  axes.axis("off")

  def cell(x, y, image=None, text=""):
    color = "#f2f2f2" if image is None else COLORS[image]
    axes.add_patch(Rectangle((x, y), 0.9, 0.9, facecolor=color, edgecolor="white"))
    ink = "#aaaaaa" if image is None else "black" if image > 1 else "white"
    axes.text(x + 0.45, y + 0.43, text, ha="center", va="center", fontsize=7, color=ink)

  for image, kept in enumerate(KEPT):
    for token in range(TOKENS):
      cell(token, 3 - image, image if token in kept else None, _name(token))
  axes.text(0, 4.5, "the batch, after a threshold", fontsize=8)

  axes.annotate("", (13.2, 2), (10.6, 2), arrowprops=dict(arrowstyle="->", color="#333333"))
  axes.text(11.9, 2.2, "sorted", ha="center", fontsize=7)
  for g, (images, width) in enumerate(zip(GROUPS, RUNGS, strict=True)):
    for row, image in enumerate(images):
      for i in range(width):
        inside = i < len(KEPT[image])
        cell(14 + i, 3.2 - 2.4 * g - row, image if inside else None, _text(KEPT[image], i))
    bottom = 2.1 - 2.4 * g
    axes.plot([14 + width, 14 + width], [bottom, bottom + 2.1], color=RED, linewidth=2)
    text = f"group {g + 1} runs {width} wide"
    axes.text(14.3 + width, bottom + 0.8, text, fontsize=7, color=RED)
  axes.text(14, 4.5, "packed: the blocks up to the next threshold run here", fontsize=8)
  axes.text(
    14, -1.1, "each width is a rung that was compiled, the least that holds the group", fontsize=7
  )
  return figure


def _name(token):
  return "c" if token == 0 else str(token)


def _text(kept, i):
  return _name(kept[i]) if i < len(kept) else ""


if __name__ == "__main__":
  draw().savefig(pathlib.Path(__file__).with_name("packing.png"))
