"""How fast every execution is, in turn with our own dense one in the same process."""

import functools
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from asvit_jax import (
  attention,
  calibration,
  cli,
  complexity,
  executions,
  inference,
  prediction,
  vit,
)
from asvit_jax.data import folder, transforms
from asvit_jax.errors import InputError

# Standard deviation ÷ mean of the patches that the first stage keeps: DeiT-T at 65 % of its GMACs
# keeps 130 ± 22 of the patches of ImageNet validation images.
REAL_SPREAD = 0.17
EXECUTIONS = ("dense", "plain", "masked", "packed", "top_k", "batch_mean")


def run(arch, params, images, kept, names=EXECUTIONS, rounds=7, dtype=jnp.float32):
  """Times executions in turn.

  `plain` is dense without regard for a CPU's cache: the whole batch at once, as most code does.
  `top_k` keeps the same number of tokens in every image, by the geometric schedule, at the GMACs
  that the thresholds spend on these images; `batch_mean` keeps the mean number of tokens of this
  batch in every image, as the authors' code does.

  Args:
    arch: an `Architecture` that prunes.
    params: its parameters, thresholds included.
    images: (b, s, s, 3) uint8.
    kept: (b, stages) patches that the thresholds keep of them.
    names: of `EXECUTIONS`; dense is always among those timed.
    rounds: number of times that each is timed.
    dtype: compute type.

  Returns:
    {name: dictionary of `ms` (median a batch), `spread_ms` (half the range of the middle half of
    the rounds), `images_per_s`, `speedup` (median over the rounds of dense ÷ this), `compile_s`,
    `memory_mb` (parameters, inputs and temporaries), `gmacs` (mean an image)}.
  """
  forwards, gmacs = _forwards(arch, kept)
  graphdef, _ = vit.abstract(arch, dtype=dtype)
  names = [name for name in EXECUTIONS if name in names or name == "dense"]
  programs, results = {}, {}
  for name in names:
    start = time.perf_counter()

    def forward(params, images, name=name):
      return forwards[name](nnx.merge(graphdef, params), transforms.normalize(images)).logits

    programs[name] = jax.jit(forward).lower(params, images).compile()
    results[name] = {"compile_s": time.perf_counter() - start, "gmacs": gmacs[name]}
    if (memory := complexity.memory_mb(programs[name])) is not None:
      results[name]["memory_mb"] = memory
    cli.log(f"{name}: compiled in {results[name]['compile_s']:.1f} s")
    jax.block_until_ready(programs[name](params, images))

  seconds = {name: [] for name in names}
  progress = cli.Progress("timing, rounds", rounds)
  for done in range(rounds):
    for name in names:
      start = time.perf_counter()
      jax.block_until_ready(programs[name](params, images))
      seconds[name].append(time.perf_counter() - start)
    progress.update(done + 1)
  for name, times in seconds.items():
    middle = statistics.median(times)
    low, high = np.percentile(times, [25, 75])
    results[name] |= {
      "ms": 1e3 * middle,
      "spread_ms": 1e3 * float(high - low) / 2,
      "images_per_s": len(images) / middle,
      "speedup": statistics.median(d / t for d, t in zip(seconds["dense"], times, strict=True)),
    }
  return results


def synthetic_images(arch, params, count, share, dtype=jnp.float32):
  """Noise whose kept counts spread over the images as those of photographs do.

  A random network spreads its attention evenly over faint patches and unevenly over strong ones,
  so the images differ in contrast; by how much is tried out until the counts of the first stage
  spread by `REAL_SPREAD`.

  Args:
    arch: an `Architecture` that prunes.
    params: its parameters.
    count: number of images.
    share: of the patches that the first stage keeps.
    dtype: compute type.

  Returns:
    (count, s, s, 3) uint8.
  """
  rng = np.random.default_rng(0)
  side, patch = arch.image_size // arch.patch_size, arch.patch_size
  noise = np.kron(rng.standard_normal((count, side, side, 3)), np.ones((1, patch, patch, 1)))
  noise += 0.5 * rng.standard_normal(noise.shape)
  strength = rng.permutation(np.linspace(-1, 1, count))[:, None, None, None]
  graphdef, _ = vit.abstract(arch, dtype=dtype)

  @jax.jit
  def first_scores(params, image):
    model = nnx.merge(graphdef, params)
    return executions.masked(model, transforms.normalize(image)).scores[:, 0]

  candidates = []
  for width in (0.0, 0.5, 1.0, 1.5, 2.0):
    images = np.clip(128 + 24 * np.exp(width * strength) * noise, 0, 255).astype(np.uint8)
    sample = images[:: max(1, count // 32)]
    scores = np.concatenate([np.asarray(first_scores(params, image[None])) for image in sample])
    kept = (scores > np.quantile(scores, 1 - share)).sum(axis=1)
    candidates.append((abs(kept.std() / kept.mean() - REAL_SPREAD), width, images))
  return min(candidates, key=lambda candidate: candidate[:2])[2]


def random_params(arch, seed=0):
  """Random parameters whose attention is uneven enough to have something to prune by."""
  _, params = vit.split(vit.create(arch, seed=seed))

  def sharpen(path, value):
    if "qkv.kernel" in jax.tree_util.keystr(path, simple=True, separator="."):
      return value.at[:, : 2 * arch.width].multiply(4.0)  # queries and keys
    return value

  return jax.tree_util.tree_map_with_path(sharpen, params)


def photographs(directory, count, arch):
  """Image files below a directory, evenly spaced, as the network sees them.

  Args:
    directory: searched with everything below it.
    count: number of images; repeated where there are fewer.
    arch: an `Architecture`.

  Returns:
    (count, s, s, 3) uint8.

  Raises:
    InputError: no images there, or one that cannot be read.
  """
  root = pathlib.Path(directory)
  files = sorted(p for p in root.rglob("*") if p.suffix.lower() in folder.SUFFIXES)
  if not files:
    raise InputError(f"--images {directory}: no image files found; give a directory that has some")
  chosen = [files[i] for i in np.linspace(0, len(files) - 1, count).round().astype(int)]
  return np.stack([prediction.load_image(f, arch.image_size, 0.875) for f in chosen])


def representative(arch, params, images, count, dtype=jnp.float32):
  """The images whose costs are evenly spaced quantiles of all: for one image, the median.

  Args:
    arch: an `Architecture` that prunes.
    params: its parameters, thresholds included.
    images: (b, s, s, 3) uint8.
    count: number of images to choose.
    dtype: compute type.

  Returns:
    (count, s, s, 3) uint8 images and (count, stages) float32 patches kept of each.
  """
  graphdef, _ = vit.abstract(arch, dtype=dtype)

  @jax.jit
  def kept_of(params, image):
    return executions.masked(nnx.merge(graphdef, params), transforms.normalize(image)).kept

  kept = np.concatenate([np.asarray(kept_of(params, image[None])) for image in images])
  cost = np.asarray(complexity.gmacs(arch, jnp.asarray(kept)))
  ranks = np.floor((np.arange(count) + 0.5) / count * len(images)).astype(int)
  chosen = np.sort(np.argsort(cost)[ranks])
  return images[chosen], kept[chosen]


def plot(results, title):
  """Images per second against GMACs, a point an execution.

  Args:
    results: of `run`.
    title: of the picture.

  Returns:
    matplotlib `Figure`.
  """
  figure = Figure((6, 4), dpi=160, layout="constrained")
  axes = figure.add_subplot()
  dense = results["dense"]
  limit = max(dense["gmacs"] / result["gmacs"] for result in results.values())
  ratios = np.linspace(1, 1.05 * limit, 50)
  axes.plot(
    dense["gmacs"] / ratios,
    dense["images_per_s"] * ratios,
    "--",
    color="#bbbbbb",
    label="dense, sped up by the ratio of MACs",
  )
  for name, result in results.items():
    axes.plot(
      result["gmacs"], result["images_per_s"], "o", label=f"{name} {result['speedup']:.2f}x"
    )
  axes.set(xlabel="GMACs an image", ylabel="images/s", title=title)
  axes.set_ylim(bottom=0)
  axes.legend(frameon=False, fontsize=8)
  axes.spines[["top", "right"]].set_visible(False)
  return figure


def fixed_count(model, images, counts):
  """Keeps the same number of tokens, those with the highest scores, in every image.

  Args:
    model: a `VisionTransformer` that prunes; its thresholds are not read.
    images: (b, height, width, 3) normalised images.
    counts: patch tokens that each stage keeps, a static number each.

  Returns:
    `Outputs` with logits only.
  """
  x = model.embed(images)
  scores, counts = None, iter(counts)
  for i, block in enumerate(model.blocks):
    if i in model.arch.prune_before:
      _, top = jax.lax.top_k(scores, next(counts))
      with_class = jnp.pad(1 + top, ((0, 0), (1, 0)))
      x = jnp.take_along_axis(x, with_class[..., None], axis=1)
    x, scores = block(x, attention.dense)
  logits = model.classify(x[:, 0])
  if model.arch.aux_head:
    logits = executions.predict(logits, model.classify_patches(x[:, 1:]).max(axis=1))
  return executions.Outputs(logits, None, None, None, None, None, None)


def _forwards(arch, kept):
  """Every execution as a function of (model, images), and its mean GMACs where so much is kept."""
  pruned = float(complexity.gmacs(arch, jnp.asarray(kept)).mean())
  ratio = calibration.uniform_ratio(arch, pruned)
  uniform = [round(arch.patches * ratio ** (i + 1)) for i in range(len(arch.prune_before))]
  mean = kept.mean(axis=0).round().astype(int).tolist()

  def fixed(counts):
    forward = functools.partial(fixed_count, counts=counts)
    return inference.cache_sized(forward, inference.CACHED_PACKED)

  def at(counts):
    return float(complexity.gmacs(arch, jnp.asarray(counts, jnp.float32)))

  dense = complexity.dense_gmacs(arch)
  forwards = inference.EXECUTIONS | {
    "plain": executions.dense,
    "top_k": fixed(uniform),
    "batch_mean": fixed(mean),
  }
  gmacs = {
    "dense": dense,
    "plain": dense,
    "masked": dense,
    "packed": pruned,
    "top_k": at(uniform),
    "batch_mean": at(mean),
  }
  return forwards, gmacs
