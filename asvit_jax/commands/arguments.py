"""Flags that several commands share, and functions that read them."""

import sys

from absl import flags
from ml_collections import config_flags

from asvit_jax.commands import kept, typed
from asvit_jax.core import outputs
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import percent_hint


def define_config(
  help_="A config file, or the name of one in configs/; by default that of --workdir.",
  goes_on=False,
  trains=False,
):
  """Defines --config, whose keys are flags, too: --config.batch_size=128.

  If keys are given without --config, they change the config of --workdir or --weights.

  Args:
    help_: help text of the flag.
    goes_on: whether the default is the config of the run in --workdir even if no keys are given.
    trains: whether the config is for training, so that all parts that it names are needed.

  Raises:
    InputError: the config that the keys change cannot be read, or a key is no key of a config.
  """
  typed.check()
  typed.allow_none()
  config = _config_to_change(goes_on, trains)
  if config is None:
    config_flags.DEFINE_config_file("config", None, help_, lock_config=True)
  else:
    config_flags.DEFINE_config_dict("config", config, help_, lock_config=True)
  outputs.keep("config", kept.of_config_flag)


def _config_to_change(goes_on, trains):
  """The config of --workdir or --weights if keys are given, or `goes_on`; None if --config is."""
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
  """The names of the user's own parts on the command line, before flags are parsed."""
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
  """The value of a flag before flags are parsed; None if it is not given."""
  for argument, following in zip(sys.argv, [*sys.argv[1:], None], strict=True):
    flag, equals, value = argument.partition("=")
    if flag in (f"--{name}", f"-{name}"):
      return value if equals else following
  return None


def define_source(what):
  """Defines --workdir and --weights, which say what to load."""
  flags.DEFINE_string("workdir", None, f"The run to {what}, or")
  flags.DEFINE_string(
    "weights", None, "the weights: a file, a directory of the hub's layout, or hf:OWNER/NAME."
  )
  flags.DEFINE_string(
    "weights-key",
    "",
    "Which of several networks in that file: model_ema, state_dict_ema, teacher, …",
  )
  flags.DEFINE_string(
    "zero-shot",
    None,
    "For an image tower of CLIP or SigLIP: an .npz file of text features, one for each class, "
    "which it then classifies by: names, features, scale, and perhaps bias.",
  )
  for name in ("workdir", "weights"):
    outputs.keep(name, kept.of_source)
  outputs.keep("zero-shot", lambda path: kept.of_file(path, "--zero-shot"))
  define_choice()
  define_parts()


def define_parts():
  """Defines --parts: the user's own parts that opened files may name."""
  flags.DEFINE_list(
    "parts",
    [],
    "Your own parts that the weights, the run or the artifact may name, as package.module:object, "
    "comma-separated: opening a file runs no other code.",
  )


def parts():
  """The names of the user's own parts in --parts and in the config, as a frozenset.

  Raises:
    InputError: --parts contains anything else.
  """
  from asvit_jax.config.parts import own
  from asvit_jax.core.parts import typed

  given = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
  return typed(flags.FLAGS.parts) | (frozenset() if given is None else own(given))


def define_choice():
  """Defines --step and --weights-of, which choose among the weights of a run."""
  flags.DEFINE_string(
    "step", "", "Checkpoint of a run: latest (the default), best, or a step number."
  )
  flags.DEFINE_string(
    "weights-of",
    "",
    "Weights of a run: ema (default if it averages), raw, or best, the better of the two.",
  )


def choice():
  """Keyword arguments of `network.load` that choose the weights of a run.

  Raises:
    InputError: the values of the flags are invalid.
  """
  from asvit_jax.run import choice

  chosen = {"step": flags.FLAGS.step, "weights_of": flags.FLAGS["weights-of"].value}
  choice.check(*chosen.values())
  return chosen


def define_execution(more=""):
  """Defines --execution; `more` describes when its default is another."""
  from asvit_jax.sparsity.executions import EXECUTIONS

  flags.DEFINE_enum(
    "execution",
    None,
    EXECUTIONS.names,
    f"How to run; default: packed if there are thresholds{more}.",
  )


def define_budget(
  help_="Share of the dense GMACs to run at, for weights calibrated for several budgets.",
):
  """Defines --budget."""
  flags.DEFINE_string("budget", None, help_)


def define_report():
  """Defines --report and --report-images: a page, and its number of images."""
  outputs.define_directory(
    "report", None, "Directory for an HTML page (index.html) of numbers and images.", _check_report
  )
  flags.DEFINE_integer(
    "report-images", 1000, "Largest number of images on that page.", lower_bound=1
  )


def _check_report(directory, _):
  from asvit_jax.report.page import writing

  writing.check(directory)


def define_target(help_):
  """Defines --target."""
  flags.DEFINE_string("target", None, f"{help_} tpu:KIND:SHAPE or gpu:KIND[:COUNT].")


def shares(name):
  """The shares of the dense GMACs in the flag `name`; None if it is not given.

  Raises:
    InputError: the value is not a list of distinct shares.
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
      f"{percent_hint(text)}"
    ) from error
  for value in values:
    check_share(value, f"--{name}")
  if len(set(values)) < len(values):
    raise InputError(f"--{name} {text!r}: give every budget once")
  return values


def share(name):
  """The single share of the dense GMACs in the flag `name`; None if it is not given.

  Raises:
    InputError: the value is not a single share.
  """
  values = shares(name)
  if values is not None and len(values) > 1:
    raise InputError(f"--{name} {flags.FLAGS[name].value!r}: expected one share of the dense GMACs")
  return None if values is None else values[0]


def source():
  """The value of --workdir or --weights, whichever is given.

  Raises:
    InputError: both or neither are given, or --weights-key without --weights.
  """
  workdir, weights = flags.FLAGS.workdir, flags.FLAGS.weights
  if weights is None and flags.FLAGS["weights-key"].value:
    raise InputError("--weights-key chooses a network in a file: give --weights, too")
  if (workdir is None) == (weights is None):
    raise InputError("give either --workdir or --weights: what to load")
  return workdir if weights is None else weights


def config(trains=False):
  """The config given, else that of the run, else one for the network that the weights describe.

  It is checked as far as an evaluation needs.

  Args:
    trains: as for `define_config`.

  Raises:
    InputError: both or neither of --workdir and --weights are given; the workdir holds no run;
      there is no config and the weights do not describe themselves; or a value is invalid.
  """
  from asvit_jax.config import identity, rules

  where, given = source(), typed.config()
  if flags.FLAGS.workdir is not None:
    # Even if a config is given: it raises an error if this is not a workdir.
    of_run = identity.load(where, parts(), _needed(trains))
    given = of_run if given is None else given
  elif given is None:
    given = _config_of_weights(where, flags.FLAGS["weights-key"].value, parts())
  if (texts := _texts()) is not None:
    given.model.num_classes = len(texts.names)
    given.model.head = given.model.text_width = None  # the weights state them
  rules.check_evaluation(given)
  outputs.check_kept(kept.of_config(given))  # also if it is the run's own config
  choice()
  return given


def plan(trains=False):
  """The `Plan` of what `config` returns, which raises the same."""
  from asvit_jax.config.plan import unchecked

  return unchecked(config(trains))


def _texts():
  """The `Texts` of --zero-shot, or None; raises InputError for a file of another form."""
  path = flags.FLAGS["zero-shot"].value
  if path is None:
    return None
  from asvit_jax.weights import texts

  return texts.of(path)


def check_classes(plan, source):
  """As `data.loader.check_classes`; the error names the file of --zero-shot, if that is given."""
  from asvit_jax.data import loader

  plan.arch.check_classifies("accuracy of")
  texts = _texts()
  if texts is not None and len(texts.names) != len(source.classes):
    raise InputError(
      f"{texts.source} has {len(texts.names)} classes, but data set {plan.data.name!r} has "
      f"{len(source.classes)}: give a text for each of its classes, in the order of their labels"
    )
  loader.check_classes(plan, source)


def network(plan, budget=None, images=None, speedup=None):
  """Loads the `Network` of --workdir or --weights as a plan asks, at a budget or speed-up.

  The names of the classes are the network's own, else those of the plan's data.

  Args:
    plan: a `Plan`.
    budget: share of the dense GMACs, or None.
    images: the `Source` of `plan.data` on which the network will run, or None.
    speedup: instead of a budget, a speed-up for which the network was calibrated, or None.

  Raises:
    InputError: see `network.load_configured` and `Network.at`; the number of class names is not the
      network's, or the images' classes are in another order.
  """
  import dataclasses

  from asvit_jax.data import sources
  from asvit_jax.data.sources.classes import check_number
  from asvit_jax.network import load_configured

  given = {"key": flags.FLAGS["weights-key"].value, "parts": parts()} | choice()
  if flags.FLAGS.workdir is not None:
    given["form"] = "workdir"  # whatever else the directory contains
  loaded = load_configured(source(), plan, resize=plan.init_resize, texts=_texts(), **given)
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
      "--weights needs --config: the weights have thresholds, but do not state stages and score"
    )
  try:
    arch, variant = recognize(stored, f"weights {weights}")
  except InputError as error:
    raise InputError(
      f"--weights needs --config, which says which network they are of and which data: {error}"
    ) from error
  return describe_in(base(), arch, variant)
