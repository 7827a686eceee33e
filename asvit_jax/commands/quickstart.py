"""The whole story on the embedded data set: train a dense ViT, prune it, compare, draw.

asvit quickstart

Everything is written to `runs/`; results of an earlier call are reused.
"""

import pathlib

from asvit_jax.core.progress import log

ARGUMENTS = (0, 0)
BUDGET = 0.5
_SHARES = ("kept_in_box", "kept_outside")


def define_flags():
  """Defines no flags."""


def main(_):
  """Runs everything; returns both evaluations and the paths of the pictures."""
  from asvit_jax.api import draw_tokens
  from asvit_jax.core import recipes, storage
  from asvit_jax.data import sources
  from asvit_jax.network import load
  from asvit_jax.report import curves, tokens
  from asvit_jax.run import metrics
  from asvit_jax.training.train import train

  runs = pathlib.Path("runs")
  pictures = ("tokens.png", "curves.png")
  storage.check_writable(runs, "the directory", pictures)
  log("1/3  a dense ViT on translated, cluttered digits")
  dense = train(recipes.load("digits"), runs / "digits")
  if dense.get("finished") is False:  # stopped by a signal
    return dense
  log(f"2/3  pruning it to {BUDGET:.0%} of its GMACs, distilled from the dense network")
  workdir = runs / "as_digits"
  config = recipes.load("as_digits", str(BUDGET))
  pruned = train(config, workdir)
  if pruned.get("finished") is False:
    return pruned
  log("3/3  pictures")
  network = load(workdir)
  images = sources.Sample(sources.open_source(config.data, config.data.eval_split), 6)
  drawn = (
    draw_tokens(network, config, images),
    curves.draw_curves(metrics.read(workdir), BUDGET * network.dense_gmacs, workdir.name),
  )
  figures = dict(zip(pictures, drawn, strict=True))
  for name, figure in figures.items():
    tokens.save(figure, runs / name)
  inside, outside = (" ".join(f"{share:.0%}" for share in pruned[k]) for k in _SHARES)
  log(
    f"\n{table({'dense': dense, 'pruned': pruned})}\n\n"
    f"Stages keep {inside} of the patches on the digit and {outside} of the background.\n"
    f"Look at {' and '.join(str(runs / name) for name in figures)}."
  )
  return {"dense": dense, "pruned": pruned, "pictures": [str(runs / name) for name in figures]}


def table(rows):
  """Evaluations as text, a line each.

  Args:
    rows: {name: result of `evaluate`}.

  Returns:
    A string with top-1, GMACs, share of dense and the kept tokens of each stage.
  """
  lines = [f"{'':8}{'top-1':>7}{'GMACs':>9}{'share':>7}   kept patch tokens per stage (mean ± std)"]
  for name, row in rows.items():
    kept = "   ".join(f"{stage['mean']:.1f} ± {stage['std']:.1f}" for stage in row["kept"])
    lines.append(
      f"{name:8}{row['top1']:7.2f}{row['gmacs']:9.4f}{row['share']:7.3f}   {kept or 'all'}"
    )
  return "\n".join(lines)
