"""Evaluates a run or a weights file: accuracy, GMACs, kept tokens, images per second.

python evaluate.py --workdir runs/as_deit_t_65
python evaluate.py --config configs/as_deit_t.py --weights W --calibrate 0.65 --config.data.dir=DIR
"""

from absl import flags

from asvit_jax.commands import arguments

ARGUMENTS = (0, 0)


def define_flags():
  """Defines them."""
  arguments.define_config()
  arguments.define_source("evaluate")
  arguments.define_execution()
  flags.DEFINE_string("per-image", None, "File for a line of JSON an image.")
  flags.DEFINE_float(
    "calibrate", None, "Set the thresholds so that the images evaluated cost this share of dense."
  )
  flags.DEFINE_string("save-weights", None, "Write the weights as safetensors here.")


def main(_):
  """Evaluates; returns the numbers."""
  from asvit_jax.config.model import architecture
  from asvit_jax.data import loader, sources
  from asvit_jax.evaluation.accuracy import evaluate
  from asvit_jax.sparsity.calibration import MAX_IMAGES
  from asvit_jax.sparsity.complexity import check_budget

  given = flags.FLAGS
  config = arguments.config()
  budget, save = given.calibrate, given["save-weights"].value
  if budget is not None:
    check_budget(architecture(config), budget)
  source = sources.open_source(config.data, config.data.eval_split, allow_flat=True)
  loader.check_classes(config, source)
  network = arguments.network(config)
  sources.check_images(source, config.data.check_images, config.data.max_bad_images)

  if budget is not None:
    sample = sources.Sample(source, MAX_IMAGES)
    network = network.calibrate(loader.eval_batches(config, sample, network.preprocessing), budget)
  execution = _execution(config, network)
  if save is not None:
    network.save(save)
  result = evaluate(network, config, source, execution, given["per-image"].value)
  return {"execution": execution, **result}


def _execution(config, network):
  """The execution asked for, or the one that fits the weights, which must be able to run it."""
  wanted = flags.FLAGS.execution or ("dense" if config.budget is None else "packed")
  if flags.FLAGS.execution is None and network.prunes:
    wanted = "packed"
  network.check_execution(wanted, arguments.source())
  return wanted
