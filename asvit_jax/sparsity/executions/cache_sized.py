"""The three executions as inference runs them: on a CPU, as many images at once as its cache holds.

A block's hidden tokens of 32 images at 224² take 39 MB in DeiT-S. A CPU that runs the whole batch
layer by layer waits for its memory; a few images at a time, all layers, take less time
(docs/benchmarks.md). An accelerator gets the whole batch at once, but for packed, which sorts it
into a few large groups.
"""

import functools

import jax

from asvit_jax.sparsity.executions import in_place
from asvit_jax.sparsity.executions.packed import in_groups
from asvit_jax.sparsity.executions.packed import packed as whole_batch_packed

# Bytes of hidden tokens, (images, n, hidden width) in float32, that stay in the cache: the best of
# several on DeiT-T, DeiT-S and the digits. Packed counts dense tokens too, but drops half of them.
CACHED = 5 * 2**19
CACHED_PACKED = 2 * CACHED
# An accelerator runs packed in so many groups of at least so many images, and at coarser widths.
GROUPS, LEAST, WIDE_STEP = 4, 8, 32


def cache_sized(execution, cached=CACHED):
  """An execution that, on a CPU, takes only so many images at a time.

  Args:
    execution: function of (model, images (b, height, width, 3)) that returns `Outputs`.
    cached: bytes of hidden tokens to run at a time, at least one image.

  Returns:
    Function like `execution`, with the same results.
  """

  def run(model, images, tokens=False):
    del tokens  # they are among the outputs in any case, and not computed where nobody reads them
    whole = functools.partial(execution, model)
    group = images_at_once(model.arch, len(images), cached)
    if group == len(images):
      return whole(images)
    return jax.lax.platform_dependent(
      images, cpu=functools.partial(in_groups, whole, group), default=whole
    )

  return run


def packed(model, images, tokens=False):
  """`packed.packed`: in groups that a CPU's cache holds; on an accelerator in a few large ones."""
  arch, b = model.arch, len(images)
  on_cpu = functools.partial(
    whole_batch_packed,
    model,
    first=images_at_once(arch, b, CACHED),
    group=images_at_once(arch, b, CACHED_PACKED),
    tokens=tokens,
  )
  elsewhere = functools.partial(
    whole_batch_packed,
    model,
    group=_divisor(b, max(LEAST, b // GROUPS)),
    step=WIDE_STEP,
    tokens=tokens,
  )
  return jax.lax.platform_dependent(images, cpu=on_cpu, default=elsewhere)


dense = cache_sized(in_place.dense)
masked = cache_sized(in_place.masked)


def images_at_once(arch, batch, cached):
  """The largest divisor of `batch` whose hidden tokens fit."""
  image = 4 * (arch.prefix_tokens + arch.patches) * arch.hidden
  return _divisor(batch, cached // image)


def _divisor(batch, most):
  """The largest divisor of `batch` that is no more than `most`, at least 1."""
  return max(group for group in range(1, max(1, min(batch, most)) + 1) if batch % group == 0)
