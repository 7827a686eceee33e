"""Evaluates a run or a weights file: accuracy, GMACs, kept tokens, images per second.

python evaluate.py --workdir runs/as_deit_t_65 --step best
python evaluate.py --workdir runs/as_deit_t_65 --config.data.dir=OTHER --per-class classes.jsonl
python evaluate.py --config configs/as_deit_t.py --weights W --calibrate 0.65 --config.data.dir=DIR
python evaluate.py --config configs/as_deit_t.py:0.65,merge --weights W --config.data.dir=DIR \
  --calibrate 0.5,0.65,0.8 --calibrate-split train --save-weights DIAL
python evaluate.py --weights W --execution fixed --counts mean --save-weights FIXED
python evaluate.py --weights DIAL --budget 0.6 --config.data.dir=DIR --compare-dense
python evaluate.py --config configs/as_deit_t.py --weights W --config.data.dir=DIR \
  --calibrate-speedup 1.5,1.8 --calibrate-split train --save-weights FAST
python evaluate.py --config configs/as_deit_t.py --weights W --config.data.dir=DIR \
  --calibrate-speedup 1.2 --speed-batch 64 --target tpu:v5e:1x1 --save-weights FOR_V5E
"""

import dataclasses

from absl import flags

from asvit_jax.commands import arguments, paced
from asvit_jax.core import outputs, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.core.progress import log

ARGUMENTS = (0, 0)
MEAN = "mean"  # a value of --counts


def define_flags():
  """Defines the flags."""
  arguments.define_config()
  arguments.define_source("evaluate")
  arguments.define_execution()
  outputs.define("per-image", None, "File for a line of JSON per image.")
  outputs.define(
    "per-class", None, "File for a line of JSON per class: its accuracy and its confusions."
  )
  flags.DEFINE_string(
    "calibrate",
    None,
    "Set the thresholds so that the images cost this share of the dense GMACs; or several shares, "
    "comma-separated: one network for all budgets from the smallest to the largest.",
  )
  paced.define_calibration()
  flags.DEFINE_string(
    "calibrate-split",
    None,
    "Split to calibrate on, or to take mean counts of; by default the evaluated one.",
  )
  flags.DEFINE_string(
    "counts",
    None,
    "For --execution fixed: the number of patches that each stage keeps of every image, "
    "comma-separated, with semicolons between budgets; or mean, the mean number that the "
    "thresholds keep. --calibrate sets them to the mean, and --save-weights saves them.",
  )
  flags.DEFINE_integer(
    "search",
    0,
    "Before --calibrate, try this number of ways to distribute the pruning over the stages, at the "
    "first budget, and use the one whose predictions are closest to the dense network's. 40 is a "
    "good number.",
    lower_bound=0,
  )
  flags.DEFINE_integer(
    "seed", 0, "Seed of the search, and of the sample that predicts speed-ups.", lower_bound=0
  )
  arguments.define_budget(
    "Shares of the dense GMACs to run at, comma-separated, for weights calibrated for several "
    "budgets. By default those just calibrated, else the weights' first budget. The budget of "
    "--config sets no thresholds: the result is only compared with it."
  )
  paced.define("Speed-ups to run at, comma-separated, for weights calibrated for several speeds.")
  flags.DEFINE_boolean(
    "compare-dense",
    False,
    "Also run the dense network with the same weights, and report the mean KL divergence from its "
    "predictions (kl, nats) and how often both predict the same class (agreement, percent), with "
    "standard errors. Needs no labels; images_per_s then covers both networks.",
  )
  outputs.define(
    "save-weights",
    None,
    "Write the weights as safetensors here.",
    _check_save_weights,
    over=("weights",),
  )
  arguments.define_report()


def _check_save_weights(path, flag):
  from asvit_jax.weights import saving

  storage.check_file(path, flag)
  saving.check_name(path)


def main(_):
  """Evaluates; returns the numbers as a dictionary."""
  from asvit_jax.core import hosts

  with hosts.joined():
    return _evaluate()


def _evaluate():
  """Evaluates; each host evaluates its part of the images, and host 0 writes files."""
  from asvit_jax.core import exchange, hosts, leaves
  from asvit_jax.data import sources
  from asvit_jax.pacing import speeds
  from asvit_jax.run import ranking
  from asvit_jax.sparsity import complexity

  given = flags.FLAGS
  plan = arguments.plan()
  budgets, wanted = arguments.shares("calibrate"), arguments.shares("budget")
  asked, speedups = paced.speedups("calibrate-speedup"), paced.speedups("speedup")
  _check_flags(budgets, wanted, asked, speedups)
  rows = _counts(plan.arch, budgets)
  if budgets is not None:
    complexity.check_budgets(plan.arch, budgets)
  if asked is not None:
    speeds.check_prunes(plan.arch)
    paced.check_target()
  source = sources.open_source(plan.data, plan.data.eval_split, allow_flat=True)
  arguments.check_classes(plan, source)
  network = arguments.network(plan, images=source)
  sources.check_images(source, plan.data.check_images, plan.data.max_bad_images)
  exchange.check_same(
    {"images": len(source), "weights (their checksum)": leaves.fingerprint(network.params)},
    "give all of them the same data and weights",
  )

  found = {}
  if budgets is not None or asked is not None:
    network, found = _calibrated(network, plan, source, budgets, asked)
  if rows is not None:
    if rows == MEAN and budgets is None:
      rows = exchange.gather(network.mean_counts(_sample(network, plan, source)))[0]
    network = network if rows == MEAN else network.with_counts(rows)
    found = found | {"counts": [list(row) for row in network.counts]}
  if speedups is not None or (network.speedups and wanted is None):
    networks = paced.at(network, speedups or asked or (network.speedups[0].asked,))
  else:
    networks = _at(network, wanted or (network.budgets if budgets is not None else ()))
  for _, one in networks:
    _execution(plan, one)  # checked before any evaluation
  execution = _execution(plan, networks[0][1])
  if given["save-weights"].value is not None and hosts.is_first():
    network.save(given["save-weights"].value)
  target = plan.budget if budgets is None else budgets[0]
  results = _evaluated(networks, plan, source, target)
  curve = {"curve": results} if len(results) > 1 else {}
  page = _page(networks[0][1], plan, source, results, execution)
  _summarize_classes(results, networks[0][1])
  for result in results if execution != "dense" else ():
    if result["target"] is not None:
      flag = "workdir" if given.workdir is not None else "weights"
      said = f"--{flag} {arguments.source()}"
      log(ranking.verdict(result, result["target"], plan, said))
  return {"execution": execution, **results[0], **found, **curve, **page}


def _summarize_classes(results, network):
  """Reduces each confusion matrix to a mean, and writes the file of --per-class."""
  from asvit_jax.core import hosts
  from asvit_jax.evaluation import per_class

  path = flags.FLAGS["per-class"].value
  for result in results:
    confusion = result.pop("confusion")
    result["mean_class_top1"] = per_class.mean_accuracy(confusion)
    if path is not None and hosts.is_first():
      per_class.write(path, confusion, network.classes)


def _page(network, plan, source, results, execution):
  """Writes the page of --report; returns its path, for JSON, or {}."""
  if flags.FLAGS.report is None:
    return {}
  from asvit_jax.report.evaluated import write_report

  count = flags.FLAGS["report-images"].value
  path = write_report(flags.FLAGS.report, network, plan, source, results, execution, count)
  return {"report": path}


def _check_flags(budgets, wanted, asked, speedups):
  """Raises InputError for flags that exclude each other."""
  given = flags.FLAGS
  paced.check_calibration(asked, speedups, budgets, wanted)
  split = given["calibrate-split"].value is not None and given.counts != MEAN and asked is None
  if budgets is None and (given.search or split):
    raise InputError("--search and --calibrate-split need --calibrate: give it a budget")
  run, set_ = wanted or speedups, budgets or asked
  several = max(len(run or ()), len(set_ or ()) if run is None else 0) > 1
  for name in ("per-image", "per-class"):
    if several and given[name].value is not None:
      flag, what = ("--budget", "budget") if wanted or budgets else ("--speedup", "speed-up")
      raise InputError(f"--{name} is for one {what}, but several are evaluated: give one {flag}")


def _counts(arch, budgets):
  """The rows of --counts, or `MEAN`, or None if it is not given.

  Args:
    arch: the `Architecture`.
    budgets: values of --calibrate, or None.

  Raises:
    InputError: the value has another form, or the network cannot keep these numbers.
  """
  from asvit_jax.network.checking import fixed_counts_of

  text = flags.FLAGS.counts
  if text is None or text == MEAN:
    return text
  try:
    rows = [[int(number) for number in row.split(",")] for row in text.split(";")]
  except ValueError as error:
    raise InputError(
      f"--counts {shown(text)}: expected mean, or the patches that each stage keeps, as 150,98,60"
    ) from error
  for row in rows:
    fixed_counts_of(arch, row)
  if budgets is not None and len(rows) not in (1, len(budgets)):
    raise InputError(f"--counts {text}: {len(rows)} rows for {len(budgets)} budgets of --calibrate")
  return rows


def _sample(network, plan, source):
  """Batches of images for calibration or for mean counts, evenly spaced in their split."""
  from asvit_jax.data import loader, sources
  from asvit_jax.sparsity.calibration import MAX_IMAGES

  split = flags.FLAGS["calibrate-split"].value
  if split is not None:
    source = sources.open_source(plan.data, split, allow_flat=True)
  sample = sources.Sample(source, MAX_IMAGES)
  return list(loader.eval_batches(plan, sample, network.preprocessing))


def _calibrated(network, plan, source, budgets, asked):
  """The network calibrated for the budgets or speed-ups, and what was found, for JSON."""
  from asvit_jax.core import exchange

  batches = _sample(network, plan, source)
  if asked is not None:
    return paced.calibrated(network, batches, asked)
  found = {}
  if flags.FLAGS.search:
    network, searched = network.search(batches, budgets[0], flags.FLAGS.search, flags.FLAGS.seed)
    found = {"search": dataclasses.asdict(searched)}
  network = network.calibrate(batches, budgets)
  # All hosts calibrated on the same images, but their results may differ in the last bit.
  found, weights, counts = exchange.gather((found, network.arch.stage_weights, network.counts))[0]
  arch = dataclasses.replace(network.arch, stage_weights=tuple(weights))
  network = dataclasses.replace(network, arch=arch, counts=counts)
  return network.with_params(exchange.from_first(network.params)), found


def _at(network, budgets):
  """[(budget or None, the network at it)]."""
  if not budgets:
    return [(network.budgets[0] if network.budgets else None, network)]
  return [(budget, network.at(budget)) for budget in budgets]


def _evaluated(networks, plan, source, target):
  """The results at every budget; `target` is the default target, or None."""
  from asvit_jax.evaluation.accuracy import evaluate

  results = []
  for budget, network in networks:
    execution = _execution(plan, network)
    if len(networks) > 1 and execution == "packed":
      # Counts differ between budgets; without them, all budgets share one program for all widths.
      network = dataclasses.replace(network, counts=())
    at = {} if budget is None else {"budget": budget}
    at |= {} if execution == "dense" else {"target": target if budget is None else budget}
    if network.speedups:
      at |= {"speedup": network.speedups[0].asked, "execution": execution}
    if len(networks) > 1:
      named = f"speed-up {at['speedup']:g}, " if network.speedups else ""
      log(f"{named}budget {budget:.4g}")
    per_image = flags.FLAGS["per-image"].value
    compare = flags.FLAGS["compare-dense"].value
    result = evaluate(
      network, plan, source, execution, per_image, confusion=True, against_dense=compare
    )
    if compare:
      log(
        f"against the dense network: KL {result['kl']:.4f}, the same class for "
        f"{result['agreement']:.1f} % of the images"
      )
    results.append(at | result)
  return results


def _execution(plan, network):
  """The execution asked for, or the weights' default.

  Raises:
    InputError: the network cannot run it.
  """
  wanted = flags.FLAGS.execution or network.default_execution()
  if flags.FLAGS.execution is None and plan.budget is not None and not network.speedups:
    wanted = "packed"
  network.check_execution(wanted, arguments.source())
  return wanted
