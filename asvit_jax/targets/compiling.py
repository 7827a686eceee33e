"""One program, compiled: what the compiler says of its memory, its work and its time."""

import dataclasses
import re
import time

import jax

from asvit_jax.core.errors import InputError

# How libtpu says that a program does not fit, the whole of it or its arguments alone.
_TOO_LARGE = re.compile(r"[Uu]sed ([\d.]+)([KMGT]) of |required for .*?\(([\d.]+)([KMGT])\)")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What is known of a program, of one device.

  Attributes:
    memory: bytes: arguments, outputs, temporaries and the program itself. Of one that does not fit,
      what the compiler says it would need.
    fits: whether the chip has as much.
    seconds: that compiling took, tracing included.
    cpu_seconds: of the processor's time, over all cores.
    flops: floating-point operations by the compiler's count; None where it does not say.
    bytes: read and written, likewise.
    touched: bytes of its arguments and results, which it reads and writes at least; None where it
      does not fit.
  """

  memory: float
  fits: bool
  seconds: float
  cpu_seconds: float
  flops: float | None = None
  bytes: float | None = None
  touched: float | None = None


def compile_for(chip, function, arguments):
  """Compiles a program.

  Args:
    chip: the `Chip` of the devices that it is for.
    function: jitted or pmapped for devices of `topology`.
    arguments: of `jax.ShapeDtypeStruct`s.

  Returns:
    `Compiled`.

  Raises:
    InputError: the compiler fails for another reason than memory.
  """
  start, cpu = time.perf_counter(), time.process_time()
  try:
    program = function.lower(*arguments).compile()
  except jax.errors.JaxRuntimeError as error:
    needed = _bytes_needed(str(error))
    if needed is None:
      said = " ".join(str(error).split())[:500]
      raise InputError(
        f"the compiler for the target fails ({said}): check that the installed "
        "versions are those of the extra `target` in pyproject.toml, and if so report it"
      ) from error
    return Compiled(needed, False, time.perf_counter() - start, time.process_time() - cpu)
  seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
  said, costs = program.memory_analysis(), program.cost_analysis() or {}
  touched = said.argument_size_in_bytes + said.output_size_in_bytes
  memory = (
    touched
    - said.alias_size_in_bytes  # results in the place of arguments
    + said.temp_size_in_bytes
    + said.generated_code_size_in_bytes
  )
  return Compiled(
    memory,
    memory <= chip.memory,
    seconds,
    cpu,
    costs.get("flops"),
    costs.get("bytes accessed"),
    touched,
  )


def _bytes_needed(message):
  """Of an error about too little memory; None of any other."""
  if "RESOURCE_EXHAUSTED" not in message:
    return None
  found = _TOO_LARGE.search(message)
  if found is None:
    return None
  number, unit = (group for group in found.groups() if group is not None)
  return float(number) * _UNITS[unit]
