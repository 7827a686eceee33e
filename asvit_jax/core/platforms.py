"""Messages for JAX's errors about missing devices and exhausted memory.

This module does not import JAX: it describes errors of programs that did.
"""

import os

from asvit_jax.core.errors import InputError


def check_flags():
  """Raises InputError for an XLA_FLAGS with which XLA would abort without a clear message."""
  flags = os.environ.get("XLA_FLAGS", "").strip()
  if flags and not flags.startswith("-") and not os.path.isfile(flags):
    raise InputError(
      f"XLA_FLAGS={flags!r} is neither flags, which begin with --, nor a file of them: unset it"
    )


def describe(error):
  """One sentence for an error of JAX's platform: what happened and what to do.

  Args:
    error: any exception.

  Returns:
    The sentence; None for any other error.
  """
  text = " ".join(str(error).split())[:300]
  if _without_platform(error):
    asked = os.environ.get("JAX_PLATFORMS")
    asked = f"of JAX_PLATFORMS={asked}" if asked else "at all"
    return (
      f"JAX cannot use a device {asked} here{f' ({text})' if text else ''}: unset JAX_PLATFORMS to "
      "use the devices that exist, or install jax for this accelerator and make sure that no other "
      "process uses it"
    )
  if type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError") and (
    "RESOURCE_EXHAUSTED" in text or "Out of memory" in text
  ):
    return (
      f"a device does not have enough memory ({text}): lower batch_size, eval.batch_size or "
      "--batch, or raise accumulate, or set model.remat"
    )
  return None


def _without_platform(error):
  """Whether JAX raised an error while starting its backends; type and text alone do not tell."""
  trace = error.__traceback__
  while trace is not None:
    code, module = trace.tb_frame.f_code, trace.tb_frame.f_globals.get("__name__")
    if module == "jax._src.xla_bridge" and code.co_name in ("backends", "_init_backend"):
      return True
    trace = trace.tb_next
  return False
