"""The executions for inference, which split a batch into groups that suit the device.

The hidden tokens of a block take 39 MB for 32 images at 224² in DeiT-S. A CPU that runs the whole
batch layer by layer is limited by its memory; running all layers on a few images at a time is
faster. By its compiler's estimates the same holds for a TPU, once the activations of a block no
longer fit into its vector memory (docs/benchmarks.md). Packed sorts images into a few groups on
every device.
"""

import functools

import jax

from asvit_jax.sparsity.executions import fixed_count, in_place
from asvit_jax.sparsity.executions.packed import begin, in_groups
from asvit_jax.sparsity.executions.packed import run as run_packed

# Bytes of hidden tokens, (images, n, hidden width) in float32, that stay in the cache: the best of
# several on DeiT-T, DeiT-S and the digits. Packed counts dense tokens too, but drops half of them.
CACHED = 5 * 2**19
CACHED_PACKED = 2 * CACHED
# The same of a TPU: 64 images of DeiT-S at 224², with which its compiler keeps blocks on the chip.
CACHED_ON_TPU = 74 * 2**20
# An accelerator runs packed in so many groups of at least so many images, and at coarser widths: by
# its compiler's estimates a TPU takes 21 % longer for four times 16 images of DeiT-S than for 64.
GROUPS, LEAST, WIDE_STEP = 4, 32, 32
# A CPU takes a few images through many stages at coarser widths, too: who asks for these waits for
# the compiler.
FEW, FEW_STAGES, FEW_STEP = 8, 3, 32


def cache_sized(execution, cached=CACHED):
  """An execution that, on a CPU and on a TPU, runs only as many images at a time as fit its cache.

  Args:
    execution: function of (model, images (b, height, width, 3)) that returns `Outputs`.
    cached: bytes of hidden tokens to run at a time on a CPU; at least one image runs.

  Returns:
    Function like `execution`, with the same results.
  """

  def run(model, images, tokens=False):
    del tokens  # they are among the outputs in any case, and not computed where nobody reads them
    return _a_few_at_once(functools.partial(execution, model), model.arch, images, cached)

  return run


def packed(model, images, tokens=False):
  """`packed.packed`, in groups whose size suits the device."""
  arch, b = model.arch, len(images)
  rows = _a_few_at_once(functools.partial(begin, model), arch, images, CACHED)
  on_cpu, elsewhere = (
    functools.partial(run_packed, model, group=group, step=step, tokens=tokens)
    for group, step in (packed_group(arch, b, "cpu"), packed_group(arch, b, "default"))
  )
  return jax.lax.platform_dependent(rows, cpu=on_cpu, default=elsewhere)


def fixed(model, images, tokens=False):
  """`fixed_count.fixed`, on as many images at a time as fit the cache, see `cache_sized`."""
  few = functools.partial(fixed_count.fixed, model, tokens=tokens)
  return _a_few_at_once(few, model.arch, images, CACHED_PACKED)


dense = cache_sized(in_place.dense)
masked = cache_sized(in_place.masked)


def packed_group(arch, batch, platform):
  """The images per group of packed on a platform of JAX, and its `step`; None is the default."""
  if platform == "cpu":
    waits = batch <= FEW and arch.stages > FEW_STAGES
    return images_at_once(arch, batch, CACHED_PACKED), FEW_STEP if waits else None
  most = max(LEAST, min(batch // GROUPS, images_at_once(arch, batch, CACHED_ON_TPU)))
  return _divisor(batch, most), WIDE_STEP


def fixed_group(arch, batch, platform):
  """The images per group of fixed on a platform of JAX."""
  return _group(arch, batch, CACHED_PACKED, platform)


def images_at_once(arch, batch, cached):
  """The largest divisor of `batch` whose hidden tokens fit into `cached` bytes, at least 1."""
  image = 4 * (arch.prefix_tokens + arch.patches) * arch.hidden
  return _divisor(batch, cached // image)


def _a_few_at_once(function, arch, images, cached):
  """Calls a function of images on as many at a time as a CPU's or a TPU's cache holds."""
  if _group(arch, len(images), cached, "cpu") == len(images):  # and so on a TPU
    return function(images)
  on_cpu, on_tpu = (
    functools.partial(in_groups, function, _group(arch, len(images), cached, platform))
    for platform in ("cpu", "tpu")
  )
  return jax.lax.platform_dependent(images, cpu=on_cpu, tpu=on_tpu, default=function)


def _group(arch, batch, cached, platform):
  """Images to run at once on a platform of JAX: as many as its cache holds, or all.

  Args:
    arch: an `Architecture`.
    batch: number of images.
    cached: bytes of hidden tokens on a CPU.
    platform: name of the platform.
  """
  most = {"cpu": cached, "tpu": CACHED_ON_TPU}.get(platform)
  return batch if most is None else images_at_once(arch, batch, most)


def _divisor(batch, most):
  """The largest divisor of `batch` that is no more than `most`, at least 1."""
  return max(group for group in range(1, max(1, min(batch, most)) + 1) if batch % group == 0)
