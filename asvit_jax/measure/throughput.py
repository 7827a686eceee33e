"""Images per second of an execution, timed in turn with dense."""

import functools
import math

import jax

from asvit_jax.core import turns
from asvit_jax.evaluation import speed
from asvit_jax.measure.subjects import subject
from asvit_jax.sparsity.executions import EXECUTIONS

_LEAST_ROUNDS, _MOST_ROUNDS = 5, 50


def run(arch, reduction, dtype, shares, share, images, batch, execution, least_s):
  """Times an execution of a network at one budget, in turn with dense.

  Args:
    arch: an `Architecture`.
    reduction: one of `settings.REDUCTIONS`.
    dtype: compute type.
    shares: the shares of the dense GMACs that are calibrated together.
    share: the one to run at.
    images: number of images to calibrate on.
    batch: number of images to run.
    execution: name of the execution.
    least_s: seconds to time both for.

  Returns:
    Dictionary for JSON: that of `speed.run` for the execution, `dense`, the same for dense, and
    `kept`, the mean number of patches that each stage keeps of these images.
  """
  one = subject(arch, reduction, shares, share, images, dtype).batch(batch)
  pixels = jax.device_put(one.images)
  dense, of_dense, plain = _dense(arch, dtype, images, shares, batch)
  network = one.network.for_execution(execution)
  program, of_execution = speed.compiled(EXECUTIONS[execution], network, pixels)
  calls = {
    "dense": functools.partial(_wait, dense, plain, pixels),
    execution: functools.partial(_wait, program, network, pixels),
  }
  once = sum(seconds[0] for seconds in turns.in_turn(calls, 1).values())
  rounds = min(_MOST_ROUNDS, max(_LEAST_ROUNDS, math.ceil(least_s / max(once, 1e-6))))
  timed = speed.summarize(turns.in_turn(calls, rounds), batch)
  kept = network.counts[0] if execution == "fixed" else one.kept.mean(axis=0)
  gmacs = float(network.gmacs(network.counts[0] if execution == "fixed" else one.kept).mean())
  return {
    **of_execution,
    **timed[execution],
    "gmacs": gmacs,
    "kept": [float(k) for k in kept],
    "dense": of_dense | timed["dense"] | {"gmacs": network.dense_gmacs},
  }


def _wait(program, network, images):
  jax.block_until_ready(program(network, images))


@functools.cache
def _dense(arch, dtype, images, shares, batch):
  """The compiled dense program of a network, for all budgets and reductions; see `speed.compiled`.

  Returns:
    The program, its dictionary, and the dense `Network` that it takes.
  """
  one = subject(arch, "drop", shares, shares[0], images, dtype).batch(batch)
  network = one.network.dense
  return *speed.compiled(EXECUTIONS["dense"], network, jax.device_put(one.images)), network
