"""The executions for inference: they run a batch in groups of images that suit the device.

The hidden tokens of a block take 39 MB for 32 images at 224² in DeiT-S. A CPU that runs the whole
batch layer by layer is limited by its memory; running all layers on a few images at a time is
faster. By its compiler's estimates the same holds for a TPU, once the activations of a block no
longer fit into its vector memory (docs/benchmarks.md). Packed sorts images into a few groups on
every device.
"""

import functools

import jax

from asvit_jax.sparsity.executions import fixed_count, in_place
from asvit_jax.sparsity.executions.packed import finish_packed, run_in_groups, start_packed

# Bytes of hidden tokens, (images, n, hidden width) in float32, that stay in the cache: the best of
# several on DeiT-T, DeiT-S and the digits. For packed, dense tokens are counted, half of which are
# dropped.
CACHED = 5 * 2**19
CACHED_PACKED = 2 * CACHED
# The same on a TPU: 64 images of DeiT-S at 224², for which its compiler keeps blocks on the chip.
CACHED_ON_TPU = 74 * 2**20
# On an accelerator, packed runs in `GROUPS` groups of at least `LEAST` images, with `WIDE_STEP`
# tokens between widths: by its compiler's estimates a TPU takes 21 % longer for four times 16
# images of DeiT-S than for 64.
GROUPS, LEAST, WIDE_STEP = 4, 32, 32
# A CPU runs at most `FEW` images through more than `FEW_STAGES` stages at coarser widths, too: then
# the time to compile matters most.
FEW, FEW_STAGES, FEW_STEP = 8, 3, 32


def in_groups(execution, cached=CACHED):
  """An execution that, on a CPU and on a TPU, runs only as many images at a time as fit its cache.

  Args:
    execution: function of (model, images (b, height, width, 3)) that returns `Outputs`.
    cached: bytes of hidden tokens to run at a time on a CPU; at least one image runs.

  Returns:
    Function like `execution`, with the same results.
  """

  def run_grouped(model, images, tokens=False):
    del tokens  # always among the outputs, and not computed unless they are read
    return run_few_at_once(functools.partial(execution, model), model.arch, images, cached)

  return run_grouped


def packed_in_groups(model, images, tokens=False):
  """`packed.packed`, in groups whose size suits the device."""
  arch, b = model.arch, len(images)
  start = functools.partial(start_packed, model, tokens=tokens)
  packed_tokens = run_few_at_once(start, arch, images, CACHED)
  on_cpu, elsewhere = (
    functools.partial(finish_packed, model, group=group, step=step, tokens=tokens)
    for group, step in (
      packed_grouping(arch, b, "cpu"),
      packed_grouping(arch, b, "default"),
    )
  )
  return jax.lax.platform_dependent(packed_tokens, cpu=on_cpu, default=elsewhere)


def fixed_in_groups(model, images, tokens=False):
  """`fixed_count.fixed`, on as many images at a time as fit the cache, see `in_groups`."""
  few = functools.partial(fixed_count.fixed, model, tokens=tokens)
  return run_few_at_once(few, model.arch, images, CACHED_PACKED)


dense_in_groups = in_groups(in_place.dense)
masked_in_groups = in_groups(in_place.masked)


def packed_grouping(arch, batch, platform):
  """The images per group of packed on a platform of JAX, and its `step`, None for the default."""
  if platform == "cpu":
    waits = batch <= FEW and arch.stages > FEW_STAGES
    return images_at_once(arch, batch, CACHED_PACKED), FEW_STEP if waits else None
  most = max(LEAST, min(batch // GROUPS, images_at_once(arch, batch, CACHED_ON_TPU)))
  return _divisor(batch, most), WIDE_STEP


def fixed_group_size(arch, batch, platform):
  """The images per group of fixed on a platform of JAX."""
  return _group_size(arch, batch, CACHED_PACKED, platform)


def images_at_once(arch, batch, cached):
  """The largest divisor of `batch` whose hidden tokens fit into `cached` bytes, at least 1."""
  image = 4 * (arch.prefix_tokens + arch.patches) * arch.hidden * (1 + arch.swiglu)
  return _divisor(batch, cached // image)


def run_few_at_once(function, arch, images, cached):
  """Calls a function of images on as many at a time as a CPU's or a TPU's cache holds."""
  if _group_size(arch, len(images), cached, "cpu") == len(images):  # then a TPU's cache holds them
    return function(images)
  on_cpu, on_tpu = (
    functools.partial(run_in_groups, function, _group_size(arch, len(images), cached, platform))
    for platform in ("cpu", "tpu")
  )
  return jax.lax.platform_dependent(images, cpu=on_cpu, tpu=on_tpu, default=function)


def _group_size(arch, batch, cached, platform):
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
