"""What is said of a program that was compiled, as numbers and in words."""

from asvit_jax.core.progress import log
from asvit_jax.targets import roofline
from asvit_jax.targets.compiling import compile_for


def compiled(name, program, target, dtype):
  """Compiles a program and says what it takes.

  Args:
    name: of it, for people.
    program: a `programs.Program`.
    target: a `names.Target`.
    dtype: compute type, "bfloat16" or "float32".

  Returns:
    Dictionary, of one device: `images_a_device`; `memory_mb`, `memory_available_mb` and `fits`;
    `compile_s` and `compile_cpu_s`; `flops` and `flops_from`, "compiler" or "formula", where the
    compiler says nothing or counts loops once; `bytes` and `bytes_from`, "compiler" or, less than
    it really is, "arguments and results"; and `roofline.estimate`, of what fits.
  """
  log(f"compiling {name} for {target.name}: {program.images:,} images on a device")
  found = compile_for(target.chip, program.function, program.arguments)
  counted = found.flops is not None and not program.loops
  moved = found.bytes if counted else found.touched
  result = {
    "images_a_device": program.images,
    "memory_mb": found.memory / 2**20,
    "memory_available_mb": target.chip.memory / 2**20,
    "fits": found.fits,
    "compile_s": found.seconds,
    "compile_cpu_s": found.cpu_seconds,
    "flops": found.flops if counted else program.flops,
    "flops_from": "compiler" if counted else "formula",
    "bytes": moved,
    "bytes_from": None if moved is None else "compiler" if counted else "arguments and results",
  }
  if found.fits:
    result |= roofline.estimate(target.chip, dtype, result["flops"], moved)
  log(describe(name, result))
  return result


def describe(name, result):
  """A line about what `compiled` returns."""
  verdict = "fits" if result["fits"] else "DOES NOT FIT"
  text = (
    f"{name}: {result['memory_mb']:,.0f} of {result['memory_available_mb']:,.0f} MiB a device, "
    f"{verdict}; {result['flops'] / 1e9:,.0f} GFLOP ({result['flops_from']})"
  )
  if result["bytes"] is not None:
    text += f", {result['bytes'] / 1e9:,.2f} GB moved ({result['bytes_from']})"
  if result["fits"]:
    text += f"; by estimate {result['estimated_ms']:,.2f} ms, bound by {result['bound']}"
  return f"{text}; compiled in {result['compile_s']:.0f} s"
