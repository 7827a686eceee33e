"""Exports a run or a weights file for others to run: safetensors, StableHLO, SavedModel, ONNX.

python export.py --workdir runs/as_deit_t_65 --format stablehlo --out deit_t_65.stablehlo.zip
python export.py --config configs/as_deit_t.py --weights W65 --format onnx --out deit_t_65.onnx
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from asvit_jax import checkpoint, cli, export
from asvit_jax import config as config_lib
from asvit_jax.data import sources
from asvit_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "A file of configs/; by default the config of --workdir.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run to export, or")
_WEIGHTS = flags.DEFINE_string("weights", None, "the weights to export.")
_FORMAT = flags.DEFINE_enum("format", None, export.FORMATS, "What to write.")
_OUT = flags.DEFINE_string("out", None, "File, or for savedmodel directory, to write.")
_BATCH = flags.DEFINE_multi_integer(
  "batch", export.BATCH_SIZES, "Batch sizes of packed programs; may be repeated.", lower_bound=1
)


def main(_):
  """Exports and verifies; returns the artifact's description."""
  config = config_lib.choose(_CONFIG.value, _WORKDIR.value, _WEIGHTS.value)
  config_lib.check_evaluation(config)
  arch = config_lib.variant(config)
  out = pathlib.Path(_OUT.value)
  if _FORMAT.value != "savedmodel" and out.is_dir():
    raise InputError(f"--out {out} is a directory: give the name of a file")
  if _FORMAT.value == "savedmodel" and out.is_file():
    raise InputError(f"--out {out} is a file: a SavedModel is a directory")
  export.check_libraries(_FORMAT.value)
  params = checkpoint.load_weights(arch, _WORKDIR.value or _WEIGHTS.value)
  cli.log(f"writing {_FORMAT.value} and verifying it: a minute or two")
  classes = sources.class_names(config.data)
  description = export.describe(config, arch, classes)
  sizes = sorted(set(_BATCH.value))
  return {"out": str(out), **export.export(arch, params, out, _FORMAT.value, description, sizes)}


if __name__ == "__main__":
  flags.mark_flags_as_required(["format", "out"])
  cli.run(main)
