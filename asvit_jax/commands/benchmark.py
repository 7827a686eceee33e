"""Times dense, masked, packed and fixed execution, uniform top-k and the authors' batch mean.

python benchmark.py --variant deit_s --budget 0.65 --batch 32
python benchmark.py --variant deit_t --budget 0.5 --weights FILE --images DIR --plot speed.png
python benchmark.py --variant deit_s --batch 256 --dtype bfloat16 --target tpu:v5e:1x1

With --target, it compiles for a device that need not be here, and reports memory and estimated time
of dense and packed execution instead of timing them.
"""

import dataclasses

from absl import flags

from asvit_jax.commands import arguments, kept, paced
from asvit_jax.core import outputs, sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.core.progress import log

ARGUMENTS = (0, 0)

# {reduction: its name in --reduction}.
_REDUCED = {"merge_tokens": "merge"}
# The thresholds are set on at least this many images; the batch is chosen from them by cost.
_SAMPLE = 32


def define_flags():
  """Defines the flags."""
  flags.DEFINE_string(
    "variant", "deit_s", "The network; not needed for weights that describe themselves."
  )
  flags.DEFINE_float("budget", 0.65, "Share of the dense GMACs to run at.")
  paced.define("Speed-up to run at instead of a budget, for weights calibrated for speeds.")
  flags.DEFINE_enum(
    "reduction", None, ["drop", "merge"], "What happens to pruned tokens, as in the recipes."
  )
  flags.DEFINE_integer("batch", 32, "Images per batch.", 1, sizes.MOST_BATCH)
  flags.DEFINE_string(
    "weights", None, "Weights of that network, or a run's workdir; random by default."
  )
  arguments.define_choice()
  arguments.define_parts()
  flags.DEFINE_string("images", None, "A directory of images; noise by default.")
  outputs.keep("weights", kept.of_source)
  outputs.keep("images", kept.of_images)
  flags.DEFINE_string(
    "image-size",
    None,
    "Another image size than the network's, 384 or 224x448; positions are interpolated.",
  )
  flags.DEFINE_multi_string(
    "execution",
    None,
    "Executions to time besides dense; repeatable. Default: all, see evaluation/speed.py.",
  )
  flags.DEFINE_integer("rounds", 7, "Number of times that each is timed.", 1, 10**6)
  flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Compute type.")
  flags.DEFINE_integer(
    "latency",
    0,
    "Server requests to time in addition, of single images and of 1 to 32 images.",
    lower_bound=0,
    upper_bound=10**6,
  )
  outputs.define("plot", None, "PNG file for images/s against GMACs.")
  arguments.define_target("The device to compile for, instead of timing on this one:")


def main(_):
  """Measures; returns the numbers as a dictionary."""
  if flags.FLAGS.target is not None:
    return _compile()
  import jax

  from asvit_jax.evaluation import speed

  given = flags.FLAGS
  _check_flags()
  network, images = _with_photographs() if given.weights else _with_noise()
  budget = given.budget
  if (speedup := paced.speedup()) is not None:
    network = network.at_speedup(speedup)
    budget = network.speedups[0].budget
  elif network.budgets:
    network = network.at(given.budget)
    if not network.counts:  # weights of a version that stored no counts
      network = network.with_counts(network.mean_counts(images))
  else:
    network = network.calibrate([{"image": image[None]} for image in images], given.budget)
  pool = images
  images, kept = speed.representative(network, pool, given.batch)
  results = speed.run(network, images, kept, given.execution or speed.USUAL, given.rounds)

  device = jax.devices()[0]
  title = f"{network.variant} at {budget:.3g}, batch {given.batch}, {given.dtype}"
  log(f"\n{title}, {device.device_kind}, jax {jax.__version__}\n{_table(results)}")
  if given.plot is not None:
    from asvit_jax.report.speed import draw_speed
    from asvit_jax.report.tokens import save

    save(draw_speed(results, title), given.plot)
  summary = {
    "variant": network.variant,
    "reduction": _REDUCED.get(network.arch.reduction, network.arch.reduction),
    "budget": budget,
    "batch": given.batch,
    "dtype": given.dtype,
    "device": device.device_kind,
    "jax": jax.__version__,
    "kept": [{"mean": float(k.mean()), "std": float(k.std())} for k in kept.T],
    "macs_ratio": results["dense"]["gmacs"] / float(network.gmacs(kept).mean()),
    "images_per_s": {name: result["images_per_s"] for name, result in results.items()},
    "results": results,
  }
  if "fixed" in results:
    summary["counts"] = list(network.counts[0])
  if "packed" in results:
    summary["speedup"] = results["packed"]["speedup"]
  if given.latency:
    from asvit_jax.evaluation import latency

    summary["latency"] = latency.run(network, pool, given.latency)
    log(f"\n{latency.table(summary['latency'])}")
  return summary


def _compile():
  """Handles --target: memory and estimated time of the executions on another device."""
  from asvit_jax.sparsity.executions import EXECUTIONS
  from asvit_jax.targets import chips, process
  from asvit_jax.vit.architecture import VARIANTS

  given = flags.FLAGS
  target = chips.parse_target(given.target)
  _check_flags()
  if given.weights is not None or given.plot is not None:
    raise InputError("--target runs nothing: leave out --weights, --images and --plot")
  executions = given.execution or ["dense", "packed"]
  for execution in executions:
    EXECUTIONS.check(execution)
  described = {
    "variant": given.variant,
    "dtype": given.dtype,
    "budget": given.budget,
    "batch": given.batch,
  }
  job = {
    "what": "inference",
    "architecture": _reduced(VARIANTS[given.variant]).to_json(),
    "executions": executions,
  }
  return described | process.run(job | described, target)


def _check_flags():
  """Raises InputError for invalid flags and combinations."""
  from asvit_jax.evaluation.speed import TIMED
  from asvit_jax.sparsity.complexity import check_budget
  from asvit_jax.vit.architecture import VARIANTS

  given = flags.FLAGS
  if given.variant not in VARIANTS:
    meant = hint(given.variant, VARIANTS)
    raise InputError(f"--variant {given.variant!r}: choose from {', '.join(VARIANTS)}{meant}")
  unknown = [name for name in given.execution or () if name not in TIMED]
  if unknown:
    meant = hint(unknown[0], TIMED)
    raise InputError(f"--execution {', '.join(unknown)}: choose from {', '.join(TIMED)}{meant}")
  if paced.speedup() is not None and given.weights is None:
    raise InputError("--speedup needs weights that were calibrated for it: give --weights")
  paced.check_one(given.speedup, given.budget if given["budget"].present else None)
  if given.weights is None and any(arguments.choice().values()):
    raise InputError(
      "--step and --weights-of choose among a run's checkpoints: give --weights WORKDIR"
    )
  if (given.weights is None) != (given.images is None):
    raise InputError("give --weights and --images together: each means little without the other")
  if given.weights is None:
    check_budget(_reduced(VARIANTS[given.variant]), given.budget)


def _reduced(arch):
  """The architecture with the reduction and image size that the flags ask for."""
  from asvit_jax.config.options import merging

  if flags.FLAGS["image-size"].value is not None:
    arch = dataclasses.replace(arch, image_size=flags.FLAGS["image-size"].value)
  if flags.FLAGS.reduction == "merge":
    return dataclasses.replace(arch, **merging(arch.depth))
  return arch


def _with_photographs():
  from asvit_jax.evaluation import speed
  from asvit_jax.network import load
  from asvit_jax.sparsity.complexity import check_budget

  given = flags.FLAGS
  chosen = {"dtype": given.dtype, "parts": arguments.parts(), **arguments.choice()}
  network = load(given.weights, **chosen)
  if given["variant"].present and network.variant != given.variant:
    raise InputError(
      f"--weights {given.weights} are for {network.variant or 'no published network'}, not for "
      f"--variant {given.variant}: leave out --variant"
    )
  if given.reduction is not None and network.prunes:
    raise InputError(
      f"--weights {given.weights} has thresholds, and {network.arch.reduction}s: leave out "
      "--reduction, or give dense weights"
    )
  arch = _reduced(network.arch)
  if arch.image_size != network.arch.image_size:
    sized = dataclasses.replace(network.arch, image_size=arch.image_size)
    resized = load(given.weights, sized, resize=True, **chosen)
    network = dataclasses.replace(
      network, params=resized.params, counts=resized.counts, speedups=resized.speedups
    )
  network = dataclasses.replace(network, arch=arch)
  if given.speedup is None:
    check_budget(network.arch, given.budget)
  return network, speed.photographs(given.images, max(given.batch, _SAMPLE), network)


def _with_noise():
  from asvit_jax.evaluation import speed
  from asvit_jax.network import create
  from asvit_jax.vit.architecture import VARIANTS

  given = flags.FLAGS
  arch = _reduced(VARIANTS[given.variant])
  network = create(arch, dtype=given.dtype, variant=given.variant)
  return speed.on_noise(network, given.budget, max(given.batch, _SAMPLE))


def _table(results):
  """The results as text, a line per execution."""
  columns = "".join(f"{c:>10}" for c in ("images/s", "speed-up", "compile s", "MB"))
  lines = [f"{'':12}{'GMACs':>8}{'ms a batch':>16}{columns}"]
  for name, r in results.items():
    timing = f"{r['ms']:.1f} ± {r['spread_ms']:.1f}"
    lines.append(
      f"{name:12}{r['gmacs']:8.3f}{timing:>16}{r['images_per_s']:10.1f}{r['speedup']:10.2f}"
      f"{r['compile_s']:10.1f}{r.get('memory_mb', float('nan')):10.0f}"
    )
  return "\n".join(lines)
