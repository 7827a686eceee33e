"""The backends of flat execution for the devices, and the execution `flat` that chooses among them.

`BACKENDS` lists, for each of JAX's platforms, the backends to try in order. A backend that cannot
run a network says why, and the next one runs; the last one, the `Reference`, runs every network. A
backend is a `flat.Reference` that also has

  name: its name in messages.
  dynamic: whether rows without a token cost it nothing. The others run at one of a few lengths,
    see `rungs`.
  refuses(arch, dtype): why it cannot run a network, in words; None if it can.
"""

import functools
import math

import jax

from asvit_jax.core.progress import log
from asvit_jax.sparsity.executions import flat as rows
from asvit_jax.sparsity.executions.flat_tpu import TPU
from asvit_jax.sparsity.executions.grouped import CACHED, run_few_at_once
from asvit_jax.sparsity.executions.packed import start_packed


class PlainXLA(rows.Reference):
  """The reference, as a backend."""

  name = "plain XLA"
  dynamic = False

  def refuses(self, arch, dtype):
    """Never: it runs every network."""
    del arch, dtype


BACKENDS = {"cpu": (PlainXLA(),), "tpu": (TPU(), PlainXLA()), "cuda": (PlainXLA(),)}
# Numbers of rows to compile for, beside the one that holds all tokens, and their widest distance
# from the mean for a single image, as a share of it; the total of b images is √b times nearer. It
# is six times the standard deviation of what DeiT-T's first stage keeps, 0.17 of the mean.
RUNGS, SPREAD = 7, 1.0


def flat_in_groups(model, images, tokens=False):
  """`flat.flat` of all images at once, by the first backend of the platform that runs the network.

  Args:
    model: a `VisionTransformer` with thresholds.
    images: (b, height, width, 3) normalised images.
    tokens: see `flat.flat`.

  Returns:
    `Outputs` as for `flat.flat`.
  """
  start = functools.partial(start_packed, model, tokens=tokens)
  packed_tokens = run_few_at_once(start, model.arch, images, CACHED)
  finish = {
    platform: functools.partial(_finish, model, platform=platform, tokens=tokens)
    for platform in BACKENDS
  }
  return jax.lax.platform_dependent(images, packed_tokens, **finish, default=finish["cpu"])


def _finish(model, images, packed_tokens, platform, tokens):
  backend = backend_for(model.arch, model.dtype, platform)
  if backend.starts:  # then nothing reads `packed_tokens`, and `jit` drops it
    packed_tokens = rows.start_flat(model, images, backend, tokens)
  lengths = None if backend.dynamic else rungs(model, *packed_tokens.keep.shape)
  return rows.finish_flat(model, packed_tokens, backend, lengths, tokens)


def backend_for(arch, dtype, platform):
  """The first backend of `BACKENDS` on a platform that runs a network; logs why others cannot."""
  for backend in BACKENDS[platform]:
    reason = backend.refuses(arch, dtype)
    if reason is None:
      return backend
    _say_once(f"flat execution on {platform}: not by {backend.name}, as {reason}")
  raise AssertionError("the last backend runs every network")


@functools.cache
def _say_once(text):
  log(text)


def rungs(model, b, n):
  """The numbers of rows to compile for at each stage, see `flat.finish_flat`.

  Around the expected total if `model.counts` says it, else evenly up to the largest.

  Args:
    model: a `VisionTransformer`.
    b: number of images.
    n: tokens of an image before pruning.
  """
  most, found = rows.most_rows(b, n), []
  for index in range(model.arch.stages):
    low, high = 0.0, float(most)
    if model.counts:
      # Half a tile an image is padding, on average.
      mean = b * (model.arch.prefix_tokens + model.counts[index] + rows.ALIGN / 2)
      spread = min(SPREAD / math.sqrt(b), 1.0) * mean
      low, high = mean - spread, mean + spread
    steps = (low + (high - low) * (i + 1) / RUNGS for i in range(RUNGS))
    lengths = {rows.aligned(math.ceil(length)) for length in steps}
    found.append(tuple(sorted({*(length for length in lengths if length < most), most})))
  return found
