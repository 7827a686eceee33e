"""Pictures of images per second against GMACs."""

import numpy as np
from matplotlib.figure import Figure

from asvit_jax.report import naming


def draw_speed(results, title):
  """Draws images per second against GMACs, a point per execution.

  Args:
    results: results of `evaluation.speed.run`.
    title: title of the picture.

  Returns:
    matplotlib `Figure`.
  """
  figure = Figure((6, 4), dpi=160, layout="constrained")
  axes = figure.add_subplot()
  dense = results["dense"]
  limit = max(dense["gmacs"] / result["gmacs"] for result in results.values())
  ratios = np.linspace(1, 1.05 * limit, 50)
  axes.plot(
    dense["gmacs"] / ratios,
    dense["images_per_s"] * ratios,
    "--",
    color="#bbbbbb",
    label="dense, sped up by the ratio of MACs",
  )
  for name, result in results.items():
    axes.plot(
      result["gmacs"],
      result["images_per_s"],
      "o",
      label=f"{naming.name(name)} {result['speedup']:.2f}x",
    )
  axes.set(xlabel="GMACs per image", ylabel="images/s")
  axes.set_title(naming.name(title), **naming.PLAIN)
  axes.set_ylim(bottom=0)
  naming.plain_legend(axes.legend(frameon=False, fontsize=8))
  axes.spines[["top", "right"]].set_visible(False)
  return figure
