"""The backends of flat execution for the devices, and the execution `flat` that chooses among them.

`BACKENDS` lists, for each of JAX's platforms, the backends to try in order. A backend that cannot
run a network says why, and the next one runs; the last one, the `Reference`, runs every network. A
backend is a `flat_rows.Reference` that also has

  name: its name in messages.
  dynamic: whether rows without a token cost it nothing.
  lengths: the numbers of rows that the others run at, see below.
  refuses(arch, dtype): why it cannot run a network, in words; None if it can.
  interpreted: a copy that runs on any platform, slowly; of kernels only.

A device chooses among several numbers of rows, `rungs`, by a conditional at each stage, for which
the host of a GPU waits. There are three choices, with the same results:

  "rungs": several numbers of rows around the expected total, and the largest one.
  "capacity": at each stage one number of rows that nearly all batches stay below, or the largest.
  "once": that number of rows at all stages, without a choice; a single conditional at the end runs
    the stages again, at the largest number, if they did not suffice.

The last two need the expected total, and fall back to the first without it.
"""

import functools
import math

import jax
import jax.numpy as jnp

from asvit_jax.core.progress import log
from asvit_jax.sparsity.executions import flat, flat_rows
from asvit_jax.sparsity.executions.flat_gpu import Triton
from asvit_jax.sparsity.executions.flat_tpu import TPU
from asvit_jax.sparsity.executions.grouped import CACHED, run_few_at_once
from asvit_jax.sparsity.executions.packed import start_packed


class PlainXLA(flat_rows.Reference):
  """The reference, as a backend."""

  name = "plain XLA"
  dynamic = False
  lengths = "rungs"

  def refuses(self, arch, dtype):
    """Never: it runs every network."""
    del arch, dtype


BACKENDS = {
  "cpu": (PlainXLA(),),
  "tpu": (TPU(), PlainXLA()),
  "cuda": (Triton(), PlainXLA()),
}
# Standard deviation of the number of tokens that an image keeps, as a share of the mean: that of
# DeiT-T's first stage. The total of b images is √b times nearer to its mean.
DEVIATION = 0.17
# Numbers of rows to compile for, beside the one that holds all tokens: evenly, from so many
# standard deviations below the expected total to so many above it, which one normal total of 30,000
# exceeds.
RUNGS, BELOW, ABOVE = 7, 2, 4


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
  default = finish.pop("cpu")
  return jax.lax.platform_dependent(images, packed_tokens, **finish, default=default)


def _finish(model, images, packed_tokens, platform, tokens):
  backend = backend_for(model.arch, model.dtype, platform)
  if backend.starts:  # then nothing reads `packed_tokens`, and `jit` drops it
    packed_tokens = flat.start_flat(model, images, backend, tokens)
  finish = functools.partial(flat.finish_flat, model, packed_tokens, backend, tokens=tokens)
  b, n = packed_tokens.keep.shape
  if backend.dynamic:
    return finish()
  if backend.lengths == "rungs" or not model.counts:
    return finish(rungs=rungs(model, b, n))
  most, enough = flat_rows.most_rows(b, n), capacities(model, b, n)
  if backend.lengths == "capacity":
    return finish(rungs=[tuple(sorted({length, most})) for length in enough])
  return run_at_capacity(finish, enough, most, model.arch.prefix_tokens)


def run_at_capacity(finish, enough, most, prefix_tokens):
  """Runs all stages at numbers of rows that suffice for nearly all batches, exactly for the others.

  Args:
    finish: function of `rungs`, see `flat.finish_flat`, that returns `Outputs`.
    enough: the number of rows at each stage.
    most: a number of rows that suffices for every batch.
    prefix_tokens: number of tokens before the patches.

  Returns:
    The `Outputs`.
  """
  outputs = finish(rungs=[(length,) for length in enough])
  # Right up to the first stage with too few rows, which is all that this asks.
  totals = flat_rows.aligned(outputs.kept.astype(jnp.int32) + prefix_tokens).sum(axis=0)
  fits = (totals <= jnp.array(enough)).all()
  return jax.lax.cond(fits, lambda: outputs, lambda: finish(rungs=[(most,)] * len(enough)))


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
  most, found = flat_rows.most_rows(b, n), []
  for index in range(model.arch.stages):
    low, high = 0.0, float(most)
    if model.counts:
      mean, deviation = _expected(model, index, b)
      low, high = mean - BELOW * deviation, mean + ABOVE * deviation
    steps = (low + (high - low) * (i + 1) / RUNGS for i in range(RUNGS))
    lengths = {flat_rows.aligned(math.ceil(length)) for length in steps}
    found.append(tuple(sorted({*(length for length in lengths if length < most), most})))
  return found


def capacities(model, b, n):
  """For each stage, a number of rows that nearly all batches stay below; arguments as `rungs`."""
  found = []
  for index in range(model.arch.stages):
    mean, deviation = _expected(model, index, b)
    enough = flat_rows.aligned(math.ceil(mean + ABOVE * deviation))
    found.append(min(enough, flat_rows.most_rows(b, n)))
  return found


def _expected(model, index, b):
  """The mean and the standard deviation of the number of rows of b images after a stage."""
  # Half a tile an image is padding, on average.
  mean = b * (model.arch.prefix_tokens + model.counts[index] + flat_rows.ALIGN / 2)
  return mean, DEVIATION / math.sqrt(b) * mean
