"""Flags that several command lines share, and what they lead to."""

import sys

from absl import flags
from ml_collections import config_flags

from asvit_jax.commands import kept, typed
from asvit_jax.core import outputs
from asvit_jax.core.errors import InputError


def define_config(
  help_="A file of configs/, its name, or one of yours; by default --workdir's.",
  goes_on=False,
  trains=False,
):
  """The flag --config, whose keys are flags too: --config.batch_size=128.

  Where keys are given and no --config, they change what --workdir or --weights say of themselves.

  Args:
    help_: of the flag.
    goes_on: whether the config of the run in --workdir is also meant where no keys are given.
    trains: whether the config is trained by, so that all parts that it names are needed.

  Raises:
    InputError: there is nothing that they could change.
  """
  typed.allow_none()
  config = _config_to_change(goes_on, trains)
  if config is None:
    config_flags.DEFINE_config_file("config", None, help_, lock_config=True)
  else:
    config_flags.DEFINE_config_dict("config", config, help_, lock_config=True)
  outputs.keep("config", kept.of_config_flag)


def _config_to_change(goes_on, trains):
  """The config of what the command line names, where it gives keys, or `goes_on`, but no config."""
  names = [argument.partition("=")[0].lstrip("-") for argument in sys.argv if argument[:1] == "-"]
  keys = [name for name in names if name.startswith(("config.", "noconfig."))]
  if "config" in names or not (keys or goes_on):
    return None
  workdir, weights = _given("workdir"), _given("weights")
  if workdir:
    from asvit_jax.config import identity
    from asvit_jax.run import layout

    there = keys or layout.is_run(workdir)
    return identity.load(workdir, _typed(), _needed(trains)) if there else None
  return _config_of_weights(weights, _given("weights-key") or "", _typed()) if weights else None


def _typed():
  """The names of parts of one's own on the command line, before flags are parsed."""
  from asvit_jax.config import base
  from asvit_jax.config.parts import TRAINING, own
  from asvit_jax.core.parts import typed

  config = base()
  for key in TRAINING:
    if _given(f"config.{key}"):
      config.update_from_flattened_dict({key: _given(f"config.{key}")})
  return own(config) | typed(name for name in (_given("parts") or "").split(",") if name)


def _needed(trains):
  from asvit_jax.config import parts

  return parts.TRAINING if trains else parts.EVALUATION


def _given(name):
  """The value of a flag, before flags are parsed; None where it is not given."""
  for argument, following in zip(sys.argv, [*sys.argv[1:], None], strict=True):
    flag, equals, value = argument.partition("=")
    if flag in (f"--{name}", f"-{name}"):
      return value if equals else following
  return None


def define_source(what):
  """The flags --workdir and --weights: what to load."""
  flags.DEFINE_string("workdir", None, f"The run to {what}, or")
  flags.DEFINE_string(
    "weights", None, "the weights: a file, a directory of the hub's layout, or hf:OWNER/NAME."
  )
  flags.DEFINE_string(
    "weights-key", "", "Which of several in that file: model_ema, state_dict_ema, teacher, …"
  )
  for name in ("workdir", "weights"):
    outputs.keep(name, kept.of_source)
  define_choice()
  define_parts()


def define_parts():
  """The flag --parts: what of the user's own the files that are opened may name."""
  flags.DEFINE_list(
    "parts",
    [],
    "Parts of your own, package.module:object with commas between, that the weights, the run or "
    "the artifact may name: opening a file runs no other code.",
  )


def parts():
  """The names of parts of one's own that --parts and the config name, as a frozenset.

  Raises:
    InputError: something else in --parts.
  """
  from asvit_jax.config.parts import own
  from asvit_jax.core.parts import typed

  given = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
  return typed(flags.FLAGS.parts) | (frozenset() if given is None else own(given))


def define_choice():
  """The flags --step and --weights-of: which weights of a run."""
  flags.DEFINE_string("step", "", "Of a run: latest (the default), best, or the number of a step.")
  flags.DEFINE_string(
    "weights-of", "", "Of a run: ema (the default where it averages), raw, or the best of the two."
  )


def choice():
  """Keyword arguments of `network.load`: which weights of a run; raises InputError for others."""
  from asvit_jax.run import choice

  chosen = {"step": flags.FLAGS.step, "weights_of": flags.FLAGS["weights-of"].value}
  choice.check(*chosen.values())
  return chosen


def define_execution(more=""):
  """The flag --execution; `more` on when its default is another."""
  from asvit_jax.sparsity.executions import EXECUTIONS

  flags.DEFINE_enum(
    "execution", None, EXECUTIONS.names, f"Default: packed where there are thresholds{more}."
  )


def define_budget(help_="Of weights calibrated for several budgets: the share of dense to run at."):
  """The flag --budget."""
  flags.DEFINE_string("budget", None, help_)


def define_report():
  """The flags --report and --report-images: a page, and how many images it has."""
  outputs.define_directory(
    "report", None, "Directory for a page (index.html) of numbers and images.", _check_report
  )
  flags.DEFINE_integer("report-images", 1000, "Images on that page, at most.", lower_bound=1)


def _check_report(directory, _):
  from asvit_jax.report.page import writing

  writing.check(directory)


def define_target(help_):
  """The flag --target."""
  flags.DEFINE_string("target", None, f"{help_} tpu:KIND:SHAPE or gpu:KIND[:COUNT].")


def shares(name):
  """The shares of the dense GMACs that the flag `name` lists; None where it is not given.

  Raises:
    InputError: something that is no list of numbers, no share, or one of them twice.
  """
  from asvit_jax.sparsity.complexity import check_share

  text = flags.FLAGS[name].value
  if text is None:
    return None
  try:
    values = tuple(float(part) for part in text.split(","))
  except ValueError as error:
    raise InputError(
      f"--{name} {text!r}: expected shares of the dense GMACs, such as 0.65 or 0.5,0.6,0.7"
    ) from error
  for value in values:
    check_share(value)
  if len(set(values)) < len(values):
    raise InputError(f"--{name} {text!r}: every budget once")
  return values


def share(name):
  """As `shares`, but one number.

  Raises:
    InputError: something else.
  """
  values = shares(name)
  if values is not None and len(values) > 1:
    raise InputError(f"--{name} {flags.FLAGS[name].value!r}: expected one share of the dense GMACs")
  return None if values is None else values[0]


def source():
  """What to load, of --workdir and --weights.

  Raises:
    InputError: both or neither are given.
  """
  workdir, weights = flags.FLAGS.workdir, flags.FLAGS.weights
  if weights is None and flags.FLAGS["weights-key"].value:
    raise InputError("--weights-key says which of the networks in a file of --weights: give that")
  if (workdir is None) == (weights is None):
    raise InputError("give either --workdir or --weights: what to load")
  return workdir if weights is None else weights


def config(trains=False):
  """The config given, else that of the run, else one for the network that the weights describe.

  Checked as far as an evaluation needs it.

  Args:
    trains: as for `define_config`.

  Raises:
    InputError: both or neither of --workdir and --weights; no workdir; weights that do not say what
      they are, without a config; a value that cannot work.
  """
  from asvit_jax.config import identity, rules

  where, given = source(), typed.config()
  if flags.FLAGS.workdir is not None:
    # In any case: it says so where this is no workdir.
    of_run = identity.load(where, parts(), _needed(trains))
    given = of_run if given is None else given
  elif given is None:
    given = _config_of_weights(where, flags.FLAGS["weights-key"].value, parts())
  rules.check_evaluation(given)
  outputs.check_kept(kept.of_config(given))  # also where it is that of the run
  choice()
  return given


def plan(trains=False):
  """The `Plan` of what `config` returns, which raises the same."""
  from asvit_jax.config.plan import unchecked

  return unchecked(config(trains))


def network(plan, budget=None, images=None, speedup=None):
  """The `Network` of --workdir or --weights as a plan describes it, at a budget if one is given.

  Its class names are those that the weights know, else those of the plan's data.

  Args:
    plan: a `Plan`.
    budget: share of the dense GMACs, or None.
    images: a `Source` of `plan.data` that it is to be run on, or None.
    speedup: one that it was calibrated for, instead of a budget, or None.

  Raises:
    InputError: see `network.load_configured` and `Network.at`; names of another number of classes
      than it has, or images whose classes are in another order than its own.
  """
  import dataclasses

  from asvit_jax.data import sources
  from asvit_jax.data.sources.classes import check_number
  from asvit_jax.network import load_configured

  given = {"key": flags.FLAGS["weights-key"].value, "parts": parts()} | choice()
  if flags.FLAGS.workdir is not None:
    given["form"] = "workdir"  # whatever else is in that directory
  loaded = load_configured(source(), plan, resize=plan.init_resize, **given)
  if budget is not None:
    loaded = loaded.at(budget)
  if speedup is not None:
    loaded = loaded.at_speedup(speedup)
  if loaded.classes is not None:
    if images is not None:
      sources.check_order(loaded.classes, plan.data, images)
    return loaded
  names = sources.class_names(plan.data)
  check_number(names, loaded.arch.classes, str(source()))
  return dataclasses.replace(loaded, classes=None if names is None else tuple(names))


def _config_of_weights(weights, key, parts):
  from asvit_jax.config import base, identity
  from asvit_jax.config.model import describe_in
  from asvit_jax.run import layout
  from asvit_jax.vit import Architecture
  from asvit_jax.weights import formats
  from asvit_jax.weights.recognition import recognize

  if layout.is_run(weights):
    return identity.load(weights, parts, _needed(False))
  stored = formats.read(weights, key, parts=parts)
  if "architecture" in stored.description:
    arch = Architecture.from_json(stored.description["architecture"], f"weights {weights}", parts)
    return describe_in(base(), arch, stored.description.get("variant", ""))
  if any(name.startswith("score_predictor.") for name in stored.tensors):
    raise InputError(
      "--weights needs --config: they have thresholds and do not say where they prune, nor by what"
    )
  try:
    arch, variant = recognize(stored, f"weights {weights}")
  except InputError as error:
    raise InputError(
      f"--weights needs --config, which says which network they are of and which data: {error}"
    ) from error
  return describe_in(base(), arch, variant)
