"""Exports a run or a weights file as safetensors, StableHLO, SavedModel, ONNX or TFLite.

python export.py --workdir runs/as_deit_t_65 --format stablehlo --out deit_t_65.stablehlo.zip
python export.py --config configs/as_deit_t.py --weights W65 --format onnx --out deit_t_65.onnx
python export.py --weights W65 --format safetensors --out w.safetensors --push-to-hub OWNER/NAME
"""

from absl import flags

from asvit_jax.commands import arguments, paced
from asvit_jax.core import outputs, schema, sizes, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log

ARGUMENTS = (0, 0)


def define_flags():
  """Defines the flags."""
  from asvit_jax.export.formats import FORMATS

  arguments.define_config()
  arguments.define_source("export")
  arguments.define_budget()
  paced.define()
  names = ", ".join(FORMATS.names)
  flags.DEFINE_string("format", None, f"Format: {names}, or your own as package.module:object.")
  help_ = "File to write, or directory if the format is a directory."
  outputs.define("out", None, help_, _check_out, over=("weights",))
  flags.DEFINE_multi_integer(
    "batch", (1, 32), "Batch sizes of packed programs; repeatable.", 1, sizes.MOST_BATCH
  )
  flags.DEFINE_enum(
    "execution",
    None,
    ["masked", "fixed", "packed"],
    "Execution of the program for any number of images. Fixed keeps the same number of tokens of "
    "every image, those of highest score, with actually fewer operations; there are then no packed "
    "programs. Packed, for ONNX only, takes one image at a time and computes only what it keeps.",
  )
  flags.DEFINE_boolean(
    "tokens", False, "Also return the tokens, their positions, and where each patch went."
  )
  flags.DEFINE_integer("opset", None, "Version of ONNX's operators.", lower_bound=1)
  flags.DEFINE_string(
    "push-to-hub", None, "OWNER/NAME on the Hugging Face hub to push the artifact to."
  )
  flags.DEFINE_string(
    "results", None, "For the model card: file with the last line of evaluate.py."
  )
  flags.DEFINE_boolean("private", False, "Whether a new repository is private.")
  flags.mark_flags_as_required(["format", "out"])


def main(_):
  """Exports and verifies; returns the artifact's description."""
  from asvit_jax.core import exchange, hosts

  with hosts.joined():
    return exchange.by_first(_export)


def _check_out(path, _):
  from asvit_jax.export.formats import FORMATS
  from asvit_jax.export.writing import check_path

  FORMATS.check(flags.FLAGS.format)
  check_path(flags.FLAGS.format, path)


def _export():
  from asvit_jax.export.formats import FORMATS
  from asvit_jax.export.writing import check_libraries, check_options

  given = flags.FLAGS
  FORMATS.check(given.format)
  plan = arguments.plan()
  check_libraries(given.format)
  options = {
    name: given[name].value for name in ("tokens", "opset", "execution") if given[name].value
  }
  check_options(given.format, options)
  push = _pushing()
  asked = arguments.share("budget")
  network = arguments.network(plan, asked, speedup=paced.speedup(asked))
  if given.execution is not None:
    network.check_execution(given.execution, arguments.source())
  budget = asked or _budget(network, plan)
  log(f"writing {given.format} and verifying it: a minute or two")
  note = network.export(given.out, given.format, sorted(set(given.batch)), budget, **options)
  return {"out": str(given.out), **note} | push()


def _budget(network, plan):
  """The share of the dense GMACs at which a network runs by default, or None."""
  if network.speedups:
    return network.speedups[0].budget
  return network.budgets[0] if network.budgets else plan.budget


def _pushing():
  """A function that pushes the artifact and returns its address; one that does nothing by default.

  Raises:
    InputError: pushing is impossible, or the file of --results is invalid.
  """
  given = flags.FLAGS
  repository, file = given["push-to-hub"].value, given.results
  if repository is None:
    if file is not None or given.private:
      raise InputError("--results and --private are for --push-to-hub")
    return dict
  from asvit_jax.export import hub

  results = None if file is None else _results(file)
  hub.check(repository)

  def push():
    log(f"pushing {given.out} to {repository}")
    return {"hub": hub.push(given.out, repository, results, given.private)}

  return push


def _results(file):
  """The final result of evaluate.py from a file; raises InputError for anything else."""
  from asvit_jax.export.card import check_results

  try:
    line = storage.read(file, schema.MOST_BYTES).strip().splitlines()[-1]
    results = schema.loads(line, schema.ANY, "it", "give what evaluate.py ended with")
  except (OSError, ValueError, IndexError) as error:
    raise InputError(f"--results {file}: no line of JSON ({error})") from error
  check_results(results)
  return results
