"""Flags for speed-ups, and their evaluation."""

import dataclasses

from absl import flags

from asvit_jax.commands import arguments
from asvit_jax.core import sizes
from asvit_jax.core.errors import InputError


def define(help_="Speed-up to run at, for weights calibrated for several speeds."):
  """Defines --speedup."""
  flags.DEFINE_string("speedup", None, help_)


def define_calibration():
  """Defines the flags with which evaluate.py sets thresholds for speed-ups."""
  flags.DEFINE_string(
    "calibrate-speedup",
    None,
    "Instead of --calibrate, set the thresholds so that a batch runs this many times as fast as "
    "dense on this device; or several, comma-separated: one network for all of them.",
  )
  flags.DEFINE_integer(
    "speed-batch", 32, "Images per batch, for --calibrate-speedup.", 1, sizes.MOST_BATCH
  )
  arguments.define_target(
    "For --calibrate-speedup: another device, a TPU whose compiler estimates the times:"
  )


def speedups(name):
  """The speed-ups in the flag `name` as a tuple; None if it is not given.

  Raises:
    InputError: the value is not a list of distinct numbers above 1.
  """
  from asvit_jax.pacing import speeds

  text = flags.FLAGS[name].value
  if text is None:
    return None
  try:
    return speeds.asked([float(part) for part in text.split(",")])
  except (ValueError, InputError) as error:
    reason = f" ({error})" if isinstance(error, InputError) else ""
    raise InputError(
      f"--{name} {text!r}: expected speed-ups over the dense network, above 1, such as 1.5 or "
      f"1.3,1.5{reason}"
    ) from error


def speedup(budget=None):
  """The single speed-up of --speedup, or None.

  Args:
    budget: the value of --budget, which excludes --speedup, or None.

  Raises:
    InputError: there are several speed-ups, an invalid one, or both flags are given.
  """
  values = speedups("speedup")
  if values is not None and len(values) > 1:
    raise InputError(f"--speedup {flags.FLAGS.speedup!r}: expected one speed-up")
  check_one(values, budget)
  return None if values is None else values[0]


def check_one(speedup, budget):
  """Raises InputError if both --speedup and --budget are given."""
  if speedup is not None and budget is not None:
    raise InputError("--speedup and --budget exclude each other: give one")


def check_calibration(asked, speedups, budgets, wanted):
  """Raises InputError if flags for speed-ups and flags for budgets exclude each other.

  Args:
    asked: values of --calibrate-speedup, or None.
    speedups: values of --speedup, or None.
    budgets: values of --calibrate, or None.
    wanted: values of --budget, or None.
  """
  given = flags.FLAGS
  if given.target is not None and asked is None:
    raise InputError(
      f"--target {given.target} is the device of --calibrate-speedup: give that, too"
    )
  if budgets is not None and asked is not None:
    raise InputError("--calibrate and --calibrate-speedup both set the thresholds: give one")
  check_one(speedups, wanted)
  if asked is not None and wanted is not None:
    raise InputError("--budget does not go with --calibrate-speedup: choose with --speedup")
  if budgets is not None and speedups is not None:
    raise InputError("--speedup does not go with --calibrate: choose with --budget")
  unknown = [s for s in speedups or () if asked is not None and s not in asked]
  if unknown:
    raise InputError(f"--speedup {unknown[0]:g} is not among those of --calibrate-speedup")
  if asked is not None and given.search:
    raise InputError("--search is for --calibrate: --calibrate-speedup tries schedules itself")
  if given.counts is not None and (asked or speedups) is not None:
    raise InputError("--counts is for budgets: a speed-up has counts of its own")


def check_target():
  """Raises InputError for a --target whose times cannot be estimated here."""
  if flags.FLAGS.target is not None:
    from asvit_jax.targets import process, times

    process.environment(times.tpu_target(flags.FLAGS.target))


def calibrated(network, batches, asked):
  """The network calibrated for the speed-ups, as on host 0, and its `Speed`s for JSON."""
  from asvit_jax.core import exchange
  from asvit_jax.pacing import speeds

  given, times = flags.FLAGS, None
  batch = given["speed-batch"].value
  if given.target is not None:
    from asvit_jax.targets.times import estimated_times

    times = estimated_times(network, given.target, batch)
  network = network.calibrate(batches, speedup=asked, batch=batch, seed=given.seed, times=times)
  # Every host timed its own devices: take the result of host 0.
  reached = [speed.to_json() for speed in network.speedups]
  reached, weights = exchange.gather((reached, network.arch.stage_weights))[0]
  network = dataclasses.replace(
    network,
    arch=dataclasses.replace(network.arch, stage_weights=tuple(weights)),
    params=exchange.from_first(network.params),
    budgets=tuple(speed["budget"] for speed in reached) if network.budgets else (),
    counts=tuple(tuple(speed["counts"]) for speed in reached),
    speedups=tuple(map(speeds.Speed.from_json, reached)),
  )
  return network, {"speedups": reached}


def at(network, asked):
  """[(budget, the network at a speed-up)] for each of the given speed-ups."""
  found = [network.at_speedup(speedup) for speedup in asked]
  return [(one.speedups[0].budget, one) for one in found]
