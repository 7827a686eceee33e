"""Classifies images: top-5 with probabilities, kept tokens, GMACs, and a picture if asked for.

python predict.py --workdir runs/as_deit_t_65 a.jpg b.jpg --picture tokens.png
python predict.py --config configs/as_deit_t.py --weights W65 a.jpg
python predict.py --artifact deit_t_65.stablehlo.zip a.jpg
python predict.py --workdir runs/as_deit_t_65 --features tokens.npz a.jpg b.jpg
"""

from absl import flags

from asvit_jax.commands import arguments, kept, paced
from asvit_jax.core import outputs
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log

ARGUMENTS = (1, None)


def define_flags():
  """Defines the flags."""
  arguments.define_config()
  arguments.define_source("use")
  flags.DEFINE_string("artifact", None, "Or an artifact of export.py.")
  outputs.keep("artifact", kept.of_artifact)
  arguments.define_execution("; masked, which compiles faster, for few images or --features")
  arguments.define_budget()
  paced.define()
  outputs.define("picture", None, "PNG file to draw the kept tokens of each image to.")
  outputs.define("features", None, ".npz file for tokens, positions, sources and scores.")


def main(paths):
  """Predicts; returns the results by image."""
  from asvit_jax.core import exchange, hosts

  with hosts.joined():
    return exchange.by_first(lambda: _predict(paths))


def _predict(paths):
  from asvit_jax.data.images import check_files

  for number, path in enumerate(paths, 1):
    if not path:
      raise InputError(f"image {number} of {len(paths)} is empty, '': give the path of an image")
  check_files(paths)
  features = _features(paths)
  run = _with_network if flags.FLAGS.artifact is None else _with_artifact
  results, patches = run(paths, features)
  if not any(result["top5"] for result in results):
    log("the network has no classifier, so no classes are predicted: --zero-shot gives it texts")
  for result in results:
    answer = ""  # of a network of features
    for best in result["top5"][:1]:
      answer = f"{best.get('class', best['label'])} {100 * best['probability']:.1f} %, "
    log(
      f"{result['file']}: {answer}kept {result['kept']} of {patches}, {result['gmacs']:.3f} GMACs"
    )
  if features is None:
    return {"predictions": results}
  features.save(flags.FLAGS.features)
  return {"predictions": results, "features": flags.FLAGS.features}


def _features(paths):
  """The `Features` for --features, whose path is checked; None if it is not given."""
  if flags.FLAGS.features is None:
    return None
  from asvit_jax.evaluation.features import Features, check_path

  check_path(flags.FLAGS.features)
  return Features(paths)


def _with_artifact(paths, features):
  from asvit_jax.evaluation.prediction import predict_by_artifact
  from asvit_jax.export.artifacts import load_artifact

  given = flags.FLAGS
  others = ("workdir", "weights", "picture", "execution", "budget", "speedup", "step", "weights-of")
  others += ("zero-shot",)
  if any(given[name].value for name in others):
    raise InputError(
      "--artifact excludes other inputs: --picture, --execution, --budget, --speedup, --step, "
      "--weights-of and --zero-shot need the network, with --workdir or --weights"
    )
  artifact = load_artifact(given.artifact, parts=arguments.parts())
  if features is not None:
    artifact.check_tokens()
  return predict_by_artifact(artifact, paths, features), artifact.arch.patches


def _with_network(paths, features):
  from asvit_jax.evaluation.prediction import predict

  given = flags.FLAGS
  plan = arguments.plan()
  budget = arguments.share("budget")
  network = arguments.network(plan, budget, speedup=paced.speedup(budget))
  if not network.prunes and (given.picture or given.execution not in (None, "dense")):
    raise InputError(
      "the weights have no thresholds, so nothing is pruned: see evaluate.py --calibrate"
    )
  execution = given.execution or network.default_execution()
  network.check_execution(execution, arguments.source())
  results = predict(network, paths, given.execution, features)
  if given.picture is not None:
    from asvit_jax.report.tokens import draw_files

    # Masked, packed and flat execution keep the same tokens.
    drawn = "fixed" if execution == "fixed" else "masked"
    draw_files(network, plan, paths, given.picture, drawn)
  return results, network.arch.patches
