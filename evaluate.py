"""Evaluates a run or a weights file: accuracy, GMACs, kept tokens, images per second.

python evaluate.py --workdir runs/as_deit_t_65
python evaluate.py --config configs/as_deit_t.py --weights W --calibrate 0.65 --config.data.dir=DIR
"""

from absl import flags
from ml_collections import config_flags

from asvit_jax import calibration, checkpoint, cli, complexity, evaluation, inference, vit, weights
from asvit_jax import config as config_lib
from asvit_jax.data import loader, sources
from asvit_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "A file of configs/; by default the config of --workdir.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run to evaluate, or")
_WEIGHTS = flags.DEFINE_string("weights", None, "the .safetensors file to evaluate.")
_EXECUTION = flags.DEFINE_enum(
  "execution", None, list(inference.EXECUTIONS), "Default: packed where there are thresholds."
)
_PER_IMAGE = flags.DEFINE_string("per-image", None, "File for a line of JSON an image.")
_CALIBRATE = flags.DEFINE_float(
  "calibrate", None, "Set the thresholds so that the images evaluated cost this share of dense."
)
_SAVE_WEIGHTS = flags.DEFINE_string("save-weights", None, "Write the weights as safetensors here.")


def main(_):
  """Evaluates; returns the numbers."""
  config = config_lib.choose(_CONFIG.value, _WORKDIR.value, _WEIGHTS.value)
  config_lib.check_evaluation(config)
  arch = config_lib.variant(config)
  if _CALIBRATE.value is not None:
    complexity.check_budget(arch, _CALIBRATE.value)
  source = sources.open_source(config.data, config.data.eval_split, allow_flat=True)
  loader.check_classes(config, source)
  params = checkpoint.load_weights(arch, _WORKDIR.value or _WEIGHTS.value)
  sources.check_images(source, config.data.check_images, config.data.max_bad_images)

  if _CALIBRATE.value is not None:
    sample = sources.Sample(source, calibration.MAX_IMAGES)
    batches = list(loader.eval_batches(config, sample))
    params = calibration.calibrate(arch, params, batches, _CALIBRATE.value, config.model.dtype)
  execution = _execution(config, params)
  if _SAVE_WEIGHTS.value is not None:
    weights.save(_SAVE_WEIGHTS.value, params)
  if execution == "dense":
    arch, params = arch.dense, vit.without_thresholds(params)
  step = evaluation.make_eval_step(arch, execution, config.model.dtype)
  result = evaluation.evaluate(step, arch, params, config, source, _PER_IMAGE.value)
  return {"execution": execution, **result}


def _execution(config, params):
  """The execution asked for, or the one that fits the weights."""
  pruned = "thresholds" in params
  wanted = _EXECUTION.value or ("packed" if pruned or config.budget is not None else "dense")
  if wanted != "dense" and not pruned:
    raise InputError(
      f"{_WORKDIR.value or _WEIGHTS.value} has no thresholds to prune with: set them with "
      "--calibrate BUDGET, or run it with --execution dense"
    )
  return wanted


if __name__ == "__main__":
  cli.run(main)
