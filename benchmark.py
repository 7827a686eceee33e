"""Times dense, masked and packed execution, a fixed top-k and the authors' batch-mean count.

python benchmark.py --variant deit_s --budget 0.65 --batch 32
python benchmark.py --variant deit_t --budget 0.5 --weights FILE --images DIR --plot speed.png
"""

import pathlib

import jax
import jax.numpy as jnp
from absl import flags

from asvit_jax import benchmark, calibration, cli, complexity, visualize, vit, weights
from asvit_jax.errors import InputError

_VARIANT = flags.DEFINE_enum("variant", "deit_s", list(vit.VARIANTS), "The network.")
_BUDGET = flags.DEFINE_float("budget", 0.65, "Share of the dense GMACs.")
_BATCH = flags.DEFINE_integer("batch", 32, "Images a batch.", lower_bound=1)
_WEIGHTS = flags.DEFINE_string("weights", None, "A .safetensors file; random ones without.")
_IMAGES = flags.DEFINE_string("images", None, "A directory of images; noise without.")
_EXECUTION = flags.DEFINE_multi_enum(
  "execution", None, benchmark.EXECUTIONS, "Which to time besides dense; may be repeated. All."
)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Times that each is timed.", lower_bound=1)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Compute type.")
_PLOT = flags.DEFINE_string("plot", None, "PNG file for images/s against GMACs.")

# At least so many images set the thresholds; the batch is drawn from them by cost.
_SAMPLE = 32


def main(_):
  """Measures; returns the numbers."""
  arch = vit.VARIANTS[_VARIANT.value]
  complexity.check_budget(arch, _BUDGET.value)
  if (_WEIGHTS.value is None) != (_IMAGES.value is None):
    raise InputError("give --weights and --images together: each means little without the other")
  count, dtype = max(_BATCH.value, _SAMPLE), jnp.dtype(_DTYPE.value)
  if _WEIGHTS.value is not None:
    params = weights.load(arch, _WEIGHTS.value)
    images = benchmark.photographs(_IMAGES.value, count, arch)
  else:
    params = benchmark.random_params(arch)
    ratio = calibration.uniform_ratio(arch, _BUDGET.value * complexity.dense_gmacs(arch))
    images = benchmark.synthetic_images(arch, params, count, ratio, dtype)
  batches = [{"image": image[None], "valid": jnp.ones(1, bool)} for image in images]
  params = calibration.calibrate(arch, params, batches, _BUDGET.value, dtype)
  images, kept = benchmark.representative(arch, params, images, _BATCH.value, dtype)
  names = _EXECUTION.value or benchmark.EXECUTIONS
  results = benchmark.run(arch, params, images, kept, names, _ROUNDS.value, dtype)

  device = jax.devices()[0]
  title = f"{_VARIANT.value} at {_BUDGET.value:g}, batch {_BATCH.value}, {_DTYPE.value}"
  cli.log(f"\n{title}, {device.device_kind}, jax {jax.__version__}\n{_table(results)}")
  if _PLOT.value is not None:
    visualize.save(benchmark.plot(results, title), pathlib.Path(_PLOT.value))
  summary = {
    "variant": _VARIANT.value,
    "budget": _BUDGET.value,
    "batch": _BATCH.value,
    "dtype": _DTYPE.value,
    "device": device.device_kind,
    "jax": jax.__version__,
    "kept": [{"mean": float(k.mean()), "std": float(k.std())} for k in kept.T],
    "macs_ratio": results["dense"]["gmacs"]
    / float(complexity.gmacs(arch, jnp.asarray(kept)).mean()),
    "images_per_s": {name: result["images_per_s"] for name, result in results.items()},
    "results": results,
  }
  if "packed" in results:
    summary["speedup"] = results["packed"]["speedup"]
  return summary


def _table(results):
  """The results as text, a line an execution."""
  columns = "".join(f"{c:>10}" for c in ("images/s", "speed-up", "compile s", "MB"))
  lines = [f"{'':12}{'GMACs':>8}{'ms a batch':>16}{columns}"]
  for name, r in results.items():
    timing = f"{r['ms']:.1f} ± {r['spread_ms']:.1f}"
    lines.append(
      f"{name:12}{r['gmacs']:8.3f}{timing:>16}{r['images_per_s']:10.1f}{r['speedup']:10.2f}"
      f"{r['compile_s']:10.1f}{r.get('memory_mb', float('nan')):10.0f}"
    )
  return "\n".join(lines)


if __name__ == "__main__":
  cli.run(main)
