"""The whole story on the embedded data set: train a dense ViT, prune it, compare, draw.

python -m asvit_jax.quickstart

Everything lands in `runs/`; what is there from an earlier call is used again.
"""

import pathlib

from asvit_jax import cli, visualize
from asvit_jax.training import loop, metrics
from configs import as_digits, digits

BUDGET = 0.5


def main(_):
  """Runs it all; returns both evaluations and where the pictures are."""
  runs = pathlib.Path("runs")
  cli.log("1/3  a dense ViT on translated, cluttered digits")
  dense = loop.train(digits.get_config(), runs / "digits")
  cli.log(f"2/3  pruning it to {BUDGET:.0%} of its GMACs, taught by the dense network")
  workdir = runs / "as_digits"
  pruned = loop.train(as_digits.get_config(str(BUDGET)), workdir)
  cli.log("3/3  pictures")
  pictures = {"tokens": runs / "tokens.png", "curves": runs / "curves.png"}
  return {"dense": dense, "pruned": pruned, "pictures": {k: str(v) for k, v in pictures.items()}}


def table(rows):
  """Evaluations as text, a line each.

  Args:
    rows: {name: result of `evaluation.evaluate`}.

  Returns:
    A string: top-1, GMACs, share of dense and the kept tokens of each stage.
  """
  lines = [f"{'':8}{'top-1':>7}{'GMACs':>9}{'share':>7}   kept patch tokens a stage (mean ± std)"]
  for name, row in rows.items():
    kept = "   ".join(f"{stage['mean']:.1f} ± {stage['std']:.1f}" for stage in row["kept"])
    lines.append(
      f"{name:8}{row['top1']:7.2f}{row['gmacs']:9.4f}{row['share']:7.3f}   {kept or 'all'}"
    )
  return "\n".join(lines)


if __name__ == "__main__":
  cli.run(main)
