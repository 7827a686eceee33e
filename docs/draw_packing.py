"""Draws docs/packing.png: python docs/draw_packing.py."""

import pathlib

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

TOKENS, WIDTH, BUFFER = 10, 6, 18
KEPT = ([0, 1, 2, 4, 7, 8], [0, 5], [0, 2, 3, 6, 9])  # of three images; 0 is the class token
COLORS = colormaps["viridis"](np.array([0.15, 0.5, 0.85]))


def draw():
  """The figure: a ragged batch, packed into one buffer, gathered for attention."""
  figure = Figure((9.2, 1.7), dpi=160, layout="constrained")
  axes = figure.add_subplot()
  axes.set(xlim=(-0.2, 29.8), ylim=(-1.2, 4.2), aspect="equal")
  axes.axis("off")

  def cell(x, y, image=None, text=""):
    color = "#f2f2f2" if image is None else COLORS[image]
    axes.add_patch(Rectangle((x, y), 0.9, 0.9, facecolor=color, edgecolor="white"))
    ink = "#aaaaaa" if image is None else "black" if image == 2 else "white"
    axes.text(x + 0.45, y + 0.43, text, ha="center", va="center", fontsize=7, color=ink)

  for image, kept in enumerate(KEPT):
    for token in range(TOKENS):
      owner = image if token in kept else None
      cell(token, 2 - image, owner, "c" if token == 0 else str(token))
  axes.text(0, 3.6, "the batch, after a threshold", fontsize=8)

  rows = [(image, token) for image, kept in enumerate(KEPT) for token in kept]
  for i in range(BUFFER):
    image, token = rows[i] if i < len(rows) else (None, "")
    cell(12 + i % 9, 2 - i // 9, image, "c" if token == 0 else str(token))
  axes.text(12, 3.6, "packed: linear layers run here", fontsize=8)
  axes.plot([12 + 5.95, 12 + 5.95], [0.85, 2.05], color="#d1495b", linewidth=2)
  axes.text(12, 0.1, "|  length, the rung that holds all rows", fontsize=7, color="#d1495b")

  for image, kept in enumerate(KEPT):
    for i in range(WIDTH):
      inside = i < len(kept)
      cell(23.5 + i, 2 - image, image if inside else None, _name(kept[i]) if inside else "")
  axes.text(23.5, 3.6, "gathered: attention", fontsize=8)
  axes.text(
    23.5, -0.8, "width, the rung that holds\nthe longest image", fontsize=7, color="#d1495b"
  )
  for x in (10.2, 21.3):
    axes.annotate("", (x + 1.5, 1.5), (x, 1.5), arrowprops=dict(arrowstyle="->", color="#333333"))
  return figure


def _name(token):
  return "c" if token == 0 else str(token)


if __name__ == "__main__":
  draw().savefig(pathlib.Path(__file__).with_name("packing.png"))
