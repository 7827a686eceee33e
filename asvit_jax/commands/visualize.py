"""Draws the tokens that a network keeps of images, how it decides, or the curves of a run.

asvit visualize --workdir runs/as_deit_t_65 --out tokens.png [IMAGE ...]
asvit visualize --workdir runs/as_deit_t_65 --scores --out scores.png IMAGE
asvit visualize --workdir runs/as_deit_t_65 --curves --out curves.png
"""

from absl import flags

from asvit_jax.commands import arguments
from asvit_jax.core import outputs
from asvit_jax.core.errors import InputError

ARGUMENTS = (0, None)


def define_flags():
  """Defines the flags."""
  arguments.define_config()
  arguments.define_source("draw")
  arguments.define_budget()
  flags.DEFINE_integer(
    "count", 8, "Number of images of the evaluation split if no files are given."
  )
  flags.DEFINE_bool("curves", False, "Draw the training curves of --workdir instead of tokens.")
  flags.DEFINE_bool(
    "scores", False, "Draw one image file with the scores and the threshold of each stage."
  )
  outputs.define("out", None, "PNG file to write.")


def main(paths):
  """Draws; returns the path and the number of images or steps."""
  out = flags.FLAGS.out
  if out is None or not out.lower().endswith(".png"):
    raise InputError(f"--out {out!r}: give the .png file to write the picture to")
  return {"out": out} | (_curves(paths, out) if flags.FLAGS.curves else _tokens(paths, out))


def _curves(paths, out):
  from asvit_jax.report import curves, tokens

  workdir = flags.FLAGS.workdir
  if workdir is None or flags.FLAGS.weights is not None or paths:
    raise InputError("--curves draws the training of a run: give --workdir, no weights or images")
  if flags.FLAGS.scores:
    raise InputError("--curves and --scores are two pictures: give one of them")
  figure, steps = curves.draw_run(workdir, arguments.parts())
  tokens.save(figure, out)
  return {"steps": steps}


def _tokens(paths, out):
  from asvit_jax.data import sources
  from asvit_jax.report import tokens

  scores = flags.FLAGS.scores
  if scores and len(paths) != 1:
    raise InputError(f"--scores draws one image file: {len(paths)} were given")
  plan = arguments.plan()
  tokens.check_rows(len(paths) or flags.FLAGS.count)
  source = None
  if not paths:
    source = sources.open_source(plan.data, plan.data.eval_split, allow_flat=True)
    source = sources.Sample(source, flags.FLAGS.count)
  network = arguments.network(plan, arguments.share("budget"), source)
  if not network.prunes:
    raise InputError(
      f"{arguments.source()} has no thresholds, so it prunes nothing: set them with evaluate.py "
      "--calibrate BUDGET --save-weights FILE and draw that file with --weights"
    )
  if scores:
    from asvit_jax.report import decisions

    tokens.save(decisions.draw_decisions(network, network.read(paths)[0]), out)
  elif paths:
    tokens.draw_files(network, plan, paths, out)
  else:
    tokens.save(tokens.draw_tokens(network, plan, source), out)
  return {"images": len(paths) or len(source)}
