"""The flags that ask for a speed-up, and what they give."""

from absl import flags

from asvit_jax.core.errors import InputError


def define(help_="Of weights calibrated for several speeds: the speed-up to run at."):
  """The flag --speedup."""
  flags.DEFINE_string("speedup", None, help_)


def speedups(name):
  """The speed-ups that the flag `name` lists, a tuple; None where it is not given.

  Raises:
    InputError: something that is no list of numbers above 1, or one of them twice.
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
      f"--{name} {text!r}: expected speed-ups beside the dense network, above 1, such as 1.5 or "
      f"1.3,1.5{reason}"
    ) from error


def speedup(budget=None):
  """The one speed-up of --speedup, or None.

  Args:
    budget: what --budget gives, which it does not go with.

  Raises:
    InputError: several, something else, or both.
  """
  values = speedups("speedup")
  if values is not None and len(values) > 1:
    raise InputError(f"--speedup {flags.FLAGS.speedup!r}: expected one speed-up")
  check_one(values, budget)
  return None if values is None else values[0]


def check_one(speedup, budget):
  """Raises InputError where both --speedup and --budget say what to run at."""
  if speedup is not None and budget is not None:
    raise InputError("--speedup and --budget both say what to run at: give one")
