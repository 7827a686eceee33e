"""The largest batch that fits, from few compilations: memory is nearly linear in the batch."""

from asvit_jax.core.progress import log

_CHECKS = 3  # compilations after the line has two points
_FULL = 0.95  # share of the memory with which it is good enough


def largest_batch(memory_of, available, unit, known):
  """The most images whose program takes no more than there is.

  A line through two batches says where the memory ends, and one more compilation whether that is
  so. Where it is not, a line through the batches on both sides of the end says more. What is named
  was compiled, but where memory is not linear in the batch, somewhat larger ones may fit, too.

  Args:
    memory_of: function of a number of images that compiles for them and returns bytes.
    available: bytes that there are.
    unit: a batch is a multiple of it.
    known: {images: bytes} of batches that were compiled before, one or more.

  Returns:
    Dictionary of `largest_batch`, images, 0 where not even `unit` fits, and
    `largest_batch_memory_mb`, that it takes.
  """
  known = dict(known)

  def measure(images):
    if images not in known:
      log(f"compiling for {images:,} images")
      known[images] = memory_of(images)
    return known[images] <= available

  if len(known) == 1:
    (first,) = known
    measure(max(unit, first // 2 // unit * unit) if first > unit else 2 * unit)
  for _ in range(_CHECKS):
    images = _predicted(known, available, unit)
    if images in known or (measure(images) and known[images] > _FULL * available):
      break
  fitting = [images for images, memory in known.items() if memory <= available]
  if not fitting:
    return {"largest_batch": 0, "largest_batch_memory_mb": None}
  images = max(fitting)
  return {"largest_batch": images, "largest_batch_memory_mb": known[images] / 2**20}


def _predicted(known, available, unit):
  """Images, a multiple of `unit`, that a line allows through the two batches around the end."""
  fitting = sorted(images for images in known if known[images] <= available)
  too_many = sorted(images for images in known if known[images] > available)
  low, high = [*fitting[-1:], *too_many[:1]] if fitting and too_many else sorted(known)[-2:]
  if too_many and not fitting:
    low, high = too_many[:2]
  slope = (known[high] - known[low]) / (high - low)
  if slope <= 0:  # nothing to go by
    return fitting[-1] if fitting else unit
  images = int(low + (available - known[low]) / slope) // unit * unit
  return max(unit, min([images, *(many - unit for many in too_many)]))
