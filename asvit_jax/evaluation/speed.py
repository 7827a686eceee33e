"""Speed of every execution, timed in turn with the dense one in the same process."""

import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core import leaves, turns
from asvit_jax.core.devices import memory_mb
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.core.promotion import usual
from asvit_jax.data import images as image_files
from asvit_jax.sparsity import complexity, schedule
from asvit_jax.sparsity.executions import EXECUTIONS, grouped, in_place
from asvit_jax.sparsity.executions.fixed_count import fixed_count

# Standard deviation ÷ mean of the patches that the first stage keeps: DeiT-T at 65 % of its GMACs
# keeps 130 ± 22 of the patches of ImageNet validation images.
REAL_SPREAD = 0.17
TIMED = ("dense", "plain", "masked", "packed", "fixed", "top_k", "batch_mean", "flat")
USUAL = TIMED[:-1]  # flat is for accelerators, and a CPU compiles it for long


def run(network, images, kept, names=USUAL, rounds=7):
  """Times executions in turn.

  `plain` is the dense network without splitting batches to fit a CPU's cache, as most code runs it.
  `top_k` keeps the same number of tokens in every image, by the geometric schedule, at the GMACs
  that the thresholds spend on these images. `batch_mean` keeps the mean number of tokens of this
  batch in every image, as the authors' code does. `fixed` keeps the network's `counts`.

  Args:
    network: a `Network` that prunes; if it has no `counts`, the mean of `kept` is used.
    images: (b, s, s, 3) uint8.
    kept: (b, stages) number of patches that the thresholds keep of each image.
    names: names of `TIMED`; dense is always timed.
    rounds: number of times that each is timed.

  Returns:
    {name: dictionary of `ms` (median per batch), `spread_ms` (half the interquartile range),
    `images_per_s`, `speedup` (median over the rounds of dense ÷ this), `compile_s`, `memory_mb`
    (parameters, inputs and temporaries), `gmacs` (mean per image)}.
  """
  if not network.counts:
    network = network.with_counts(schedule.mean_counts(kept))
  forwards, gmacs = _forwards(network, kept)
  names = [name for name in TIMED if name in names or name == "dense"]
  programs, results = {}, {}
  for name in names:
    programs[name], results[name] = compiled(forwards[name], network, images)
    results[name]["gmacs"] = gmacs[name]
    log(f"{name}: compiled in {results[name]['compile_s']:.1f} s")

  def call(program):
    jax.block_until_ready(program(network, images))

  calls = {name: functools.partial(call, program) for name, program in programs.items()}
  timed = summarize(turns.in_turn(calls, rounds), len(images))
  return {name: result | timed[name] for name, result in results.items()}


def compiled(execution, network, images):
  """Compiles an execution of a network for images, and runs it once.

  Args:
    execution: function of (model, normalised images) that returns `Outputs`.
    network: a `Network`.
    images: (b, s, s, 3) uint8.

  Returns:
    The program, a function of (network, images) that returns logits; and a dictionary of
    `compile_s` and, if the compiler says it, `memory_mb`.
  """
  start = time.perf_counter()

  @usual
  def forward(network, images):
    return execution(network.model, network.preprocessing.normalize(images)).logits

  program = jax.jit(forward).lower(network, images).compile()
  result = {"compile_s": time.perf_counter() - start}
  if (memory := memory_mb(program)) is not None:
    result["memory_mb"] = memory
  jax.block_until_ready(program(network, images))
  return program, result


def summarize(seconds, images):
  """Computes `ms`, `spread_ms`, `images_per_s` and `speedup`, see `run`, from timings.

  Args:
    seconds: timings of `in_turn`, including "dense".
    images: number of images in a timed call.

  Returns:
    {name: dictionary}.
  """
  summary = {}
  for name, times in seconds.items():
    middle = statistics.median(times)
    low, high = np.percentile(times, [25, 75])
    summary[name] = {
      "ms": 1e3 * middle,
      "spread_ms": 1e3 * float(high - low) / 2,
      "images_per_s": images / middle,
      "speedup": statistics.median(d / t for d, t in zip(seconds["dense"], times, strict=True)),
    }
  return summary


def synthetic_images(network, count, share):
  """Noise images whose numbers of kept patches vary as those of photographs do.

  A random network attends evenly to faint patches and unevenly to strong ones, so the images get
  different contrasts. The range of contrasts is chosen such that the counts of the first stage have
  a relative spread of `REAL_SPREAD`.

  Args:
    network: a `Network` whose architecture prunes.
    count: number of images.
    share: share of the patches that the first stage keeps.

  Returns:
    (count, s, s, 3) uint8.
  """
  rng = np.random.default_rng(0)
  patch = network.arch.patch_size
  noise = rng.standard_normal((count, *network.arch.grid, 3))
  noise = np.kron(noise, np.ones((1, patch, patch, 1)))
  noise += 0.5 * rng.standard_normal(noise.shape)
  strength = rng.permutation(np.linspace(-1, 1, count))[:, None, None, None]

  @jax.jit
  def first_scores(network, image):
    return network.apply(image, "masked").scores[:, 0]

  candidates = []
  for width in (0.0, 0.5, 1.0, 1.5, 2.0):
    images = np.clip(128 + 24 * np.exp(width * strength) * noise, 0, 255).astype(np.uint8)
    sample = images[:: max(1, count // 32)]
    scores = np.concatenate([np.asarray(first_scores(network, image[None])) for image in sample])
    kept = (scores > np.quantile(scores, 1 - share)).sum(axis=1)
    candidates.append((abs(kept.std() / kept.mean() - REAL_SPREAD), width, images))
  return min(candidates, key=lambda candidate: candidate[:2])[2]


def on_noise(network, budget, count):
  """A random network to calibrate, and images for it.

  Args:
    network: a `Network` with random parameters, whose architecture prunes.
    budget: share of the dense GMACs for which the images keep various numbers of patches.
    count: number of images.

  Returns:
    The network, `sharpened`, and (count, s, s, 3) uint8.
  """
  network = sharpened(network)
  scheduled = schedule.with_stage_weights(network.arch, budget)
  ratio = complexity.uniform_ratio(scheduled, complexity.target_gmacs(scheduled, budget))
  return network, synthetic_images(network, count, ratio ** scheduled.stage_exponents[0])


def sharpened(network):
  """A random network with its attention sharpened, so that pruning has differences to work on."""

  def sharpen(name, value):
    if name.endswith("qkv.kernel"):
      return value.at[:, : 2 * network.arch.width].multiply(4.0)  # queries and keys
    return value

  return network.with_params(leaves.map_named(sharpen, network.params))


def photographs(directory, count, network):
  """Reads evenly spaced image files below a directory, preprocessed for the network.

  Args:
    directory: directory that is searched recursively.
    count: number of images; some repeat if there are fewer.
    network: a `Network`.

  Returns:
    (count, s, s, 3) uint8.

  Raises:
    InputError: there are no images, or one cannot be read.
  """
  files = image_files.find(directory)
  if not files:
    raise InputError(f"--images {directory}: no image files found; give a directory that has some")
  chosen = [files[i] for i in np.linspace(0, len(files) - 1, count).round().astype(int)]
  return network.read(chosen)


def representative(network, images, count):
  """Chooses images at evenly spaced quantiles of the cost: for a single image, the median.

  Args:
    network: a `Network` that prunes.
    images: (b, s, s, 3) uint8.
    count: number of images to choose.

  Returns:
    (count, s, s, 3) uint8 images and (count, stages) float32 number of patches kept of each.
  """

  @jax.jit
  def kept_of(network, image):
    return network.apply(image, "masked").kept

  kept = np.concatenate([np.asarray(kept_of(network, image[None])) for image in images])
  chosen = turns.representative(network.gmacs(kept), count)
  return images[chosen], kept[chosen]


def _forwards(network, kept):
  """Every execution as a function of (model, images), and its mean GMACs for the given `kept`."""
  arch = network.arch
  pruned = float(complexity.gmacs(arch, jnp.asarray(kept)).mean())
  scheduled = schedule.with_stage_weights(arch, pruned / complexity.dense_gmacs(arch))
  uniform = schedule.uniform_counts(scheduled, complexity.uniform_ratio(scheduled, pruned))
  mean = schedule.mean_counts(kept)

  def fixed(numbers):
    forward = functools.partial(fixed_count, counts=numbers)
    return grouped.in_groups(forward, grouped.CACHED_PACKED)

  def at(numbers):
    return float(complexity.gmacs(arch, jnp.asarray(numbers, jnp.float32)))

  dense = complexity.dense_gmacs(arch)
  forwards = {name: EXECUTIONS[name] for name in EXECUTIONS} | {
    "plain": in_place.dense,
    "top_k": fixed(uniform),
    "batch_mean": fixed(mean),
  }
  gmacs = {
    "dense": dense,
    "plain": dense,
    "masked": dense,
    "packed": pruned,
    "flat": pruned,
    "fixed": at(network.counts[0]),
    "top_k": at(uniform),
    "batch_mean": at(mean),
  }
  return forwards, gmacs
