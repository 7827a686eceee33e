"""Compares methods of token reduction on the same weights and images, at equal GMACs or time.

python compare.py --config configs/as_deit_t_sample.py:0.65,merge --weights W --config.data.dir=DIR
python compare.py --config … --weights W --budgets 0.5 --methods merge,tome --finetune --rounds 9
python compare.py --config … --weights W --speedups 1.3,1.5,1.8 --methods merge,tome

Rerun with the same --out, it measures only what is still missing.
"""

import math

from absl import flags

from asvit_jax.commands import arguments
from asvit_jax.core import outputs, sizes, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log

ARGUMENTS = (0, 0)
_BUDGETS = (0.65, 0.5)  # without --budgets and without a budget in the config


def define_flags():
  """Defines the flags."""
  from asvit_jax.comparison import DEFAULT

  arguments.define_config(trains=True)
  arguments.define_source("compare on")
  flags.DEFINE_string(
    "budgets",
    None,
    "Shares of the dense GMACs, comma-separated. Without it, and without --speedups, the config's "
    "own budget, 0.6 for --config RECIPE:0.6, or "
    f"{','.join(map(str, _BUDGETS))} if it has none.",
  )
  flags.DEFINE_string(
    "speedups",
    None,
    "Speed-ups over the dense network, such as 1.3,1.8: each method runs at the budget that is "
    "measured to reach them here; instead of --budgets, or in addition if both are given.",
  )
  flags.DEFINE_list(
    "methods",
    list(DEFAULT),
    "Methods, or package.module:object of your own; top_k is another name of drop_fixed.",
  )
  outputs.define_directory("out", "runs/compare", "Directory for all results.", _check_out)
  flags.DEFINE_bool("finetune", False, "Also fine-tune each method by the config's recipe.")
  flags.DEFINE_integer("rounds", 7, "Number of times that each is timed; 0: no timing.", 0, 10**6)
  arguments.define_report()
  flags.DEFINE_integer("speed-batch", 32, "Images to time on.", 1, sizes.MOST_BATCH)


def main(_):
  """Compares; returns the results as a dictionary."""
  from asvit_jax.comparison.contenders import contenders, searched
  from asvit_jax.comparison.running import Comparison, markdown
  from asvit_jax.config.plan import unchecked
  from asvit_jax.data import loader, sources
  from asvit_jax.report.comparison import draw_comparison
  from asvit_jax.report.tokens import save

  given = flags.FLAGS
  methods, speedups = list(dict.fromkeys(given.methods)), _speedups()
  budgets = arguments.shares("budgets")
  if not methods:
    raise InputError("--methods is empty: give at least one")
  config = arguments.config(trains=given.finetune)
  plan = unchecked(config)
  if budgets is None:
    budgets = () if speedups else _budgets_of(plan)
  if given.finetune:
    _check_recipe(config)
  source = sources.open_source(plan.data, plan.data.eval_split, allow_flat=True)
  arguments.check_classes(plan, source)
  network = arguments.network(plan, images=source)
  compared = contenders(network, methods, budgets)
  fast = searched(network, methods) if speedups else []
  train_source = None
  if given.finetune or any(contender.method.adaptive for contender in (*compared, *fast)):
    train_source = sources.open_source(plan.data, plan.data.train_split)
    loader.check_classes(plan, train_source)
  for opened in (source, train_source):
    if opened is not None:
      sources.check_images(opened, plan.data.check_images, plan.data.max_bad_images)

  opened = plan, source, train_source
  comparison = Comparison(network.dense, compared, *opened, given.out, fast, speedups)
  results = comparison.run(given.finetune, given.rounds, given["speed-batch"].value)
  table = markdown(results)
  storage.write(f"{given.out}/table.md", table, "the table")
  title = f"{network.variant}, {len(source)} images"
  save(draw_comparison(results, title), f"{given.out}/compare.png")
  log(f"\n{table}\nwritten: results.json, table.md and compare.png in {given.out}")
  if given.report is None:
    return {"out": given.out, **results}
  return {"out": given.out, "report": _report(comparison, results, title), **results}


def _budgets_of(plan):
  """The default of --budgets: the plan's own budget, or `_BUDGETS`."""
  return _BUDGETS if plan.budget is None else (plan.budget,)


def _speedups():
  """The speed-ups of --speedups as a tuple; () if there are none.

  Raises:
    InputError: the value is not a list of distinct numbers above 1, or --rounds is 0.
  """
  text = flags.FLAGS.speedups
  if text is None:
    return ()
  expected = "expected how many times as fast as the dense network, such as 1.5 or 1.3,1.8"
  try:
    values = tuple(float(part) for part in text.split(","))
  except ValueError as error:
    raise InputError(f"--speedups {text!r}: {expected}") from error
  if not all(1 < value < math.inf for value in values):
    raise InputError(f"--speedups {text!r}: {expected}, each above 1")
  if len(set(values)) < len(values):
    raise InputError(f"--speedups {text!r}: give every speed-up once")
  if not flags.FLAGS.rounds:
    raise InputError(
      f"--speedups {text!r} are measured, and --rounds 0 times nothing: give --rounds 1 or more"
    )
  return values


def _check_out(directory, flag):
  files = ("results.json", "table.md", "compare.png")
  storage.check_writable(directory, flag, files, ["measured"])


def _report(comparison, results, title):
  """Writes the page, with the images of one method; returns its path."""
  from asvit_jax.report import images
  from asvit_jax.report.compared import write_comparison

  plan = comparison.plan
  facts = [f"{plan.data.name}, split {plan.data.eval_split}", comparison.network.dtype]
  gallery, shown = None, comparison.example(results)
  if shown is not None:
    facts.append(f"images: {shown.title}, without training")
    count = flags.FLAGS["report-images"].value
    gallery, _ = images.collect(shown.network, plan, comparison.source, "packed", count)
  return write_comparison(flags.FLAGS.report, results, title, facts, gallery)


def _check_recipe(config):
  """Raises InputError if a config cannot be used for training."""
  from asvit_jax.config.plan import resolve

  checked = config.copy_and_resolve_references()
  checked.budget = None  # --budgets and the given weights take its place
  resolve(checked)
