"""Classifies images: top-5 with probabilities, kept tokens, GMACs, and a picture if asked for.

python predict.py --workdir runs/as_deit_t_65 a.jpg b.jpg --picture tokens.png
python predict.py --config configs/as_deit_t.py --weights W65 a.jpg
python predict.py --artifact deit_t_65.stablehlo.zip a.jpg
"""

from absl import flags
from ml_collections import config_flags

from asvit_jax import checkpoint, cli, inference, prediction, visualize
from asvit_jax import config as config_lib
from asvit_jax.data import sources
from asvit_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "A file of configs/; by default the config of --workdir.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run to use, or")
_WEIGHTS = flags.DEFINE_string("weights", None, "the weights, or")
_ARTIFACT = flags.DEFINE_string("artifact", None, "what export.py wrote.")
_EXECUTION = flags.DEFINE_enum(
  "execution", None, list(inference.EXECUTIONS), "Default: packed where there are thresholds."
)
_PICTURE = flags.DEFINE_string("picture", None, "PNG file for the tokens kept of each image.")


def main(paths):
  """Predicts; returns the results by image."""
  prediction.check_files(paths)
  if _ARTIFACT.value is not None:
    if _WORKDIR.value or _WEIGHTS.value or _PICTURE.value or _EXECUTION.value:
      raise InputError(
        "--artifact goes by itself: --picture and --execution need the network, with --workdir or "
        "--weights"
      )
    run, arch, note, sizes = prediction.from_artifact(_ARTIFACT.value)
    crop_ratio, classes = note["preprocessing"]["crop_ratio"], note["classes"]
  else:
    config = config_lib.choose(_CONFIG.value, _WORKDIR.value, _WEIGHTS.value)
    config_lib.check_evaluation(config)
    arch, classes = config_lib.variant(config), sources.class_names(config.data)
    crop_ratio, sizes = config.data.crop_ratio, ()
    params = checkpoint.load_weights(arch, _WORKDIR.value or _WEIGHTS.value)
    pruned = "thresholds" in params
    if not pruned and (_PICTURE.value or _EXECUTION.value in ("masked", "packed")):
      raise InputError("the weights have no thresholds, so nothing is pruned: see --calibrate")
    run = prediction.in_memory(arch, params, _EXECUTION.value, config.model.dtype)
  results = prediction.predict(run, paths, arch, crop_ratio, sizes, classes)
  for result in results:
    best = result["top5"][0]
    cli.log(
      f"{result['file']}: {best.get('class', best['label'])} {100 * best['probability']:.1f} %, "
      f"kept {result['kept']} of {arch.patches}, {result['gmacs']:.3f} GMACs"
    )
  if _PICTURE.value is not None:
    visualize.draw_files(arch, params, config, paths, _PICTURE.value)
  return {"predictions": results}


if __name__ == "__main__":
  cli.run(main, least=1, most=None)
