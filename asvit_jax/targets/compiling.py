"""Compiles a program for devices that are not here: its memory, work and estimated time."""

import dataclasses
import re
import time

import jax
from jax.experimental import topologies

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log

# libtpu's messages that a program, or its arguments alone, do not fit into the memory.
_TOO_LARGE = re.compile(r"[Uu]sed ([\d.]+)([KMGT]) of |required for .*?\(([\d.]+)([KMGT])\)")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_CHECKS = 3  # most compilations beyond the two that determine a line
_FULL = 0.95  # a batch that takes this share of the memory ends the search


def devices(target):
  """JAX's devices of a target, on all of its hosts.

  Programs can be compiled for them, and nothing can run on them. Needs the variables of
  `process.environment`.

  Args:
    target: a `chips.Target`.

  Returns:
    List of `jax.Device`.

  Raises:
    InputError: the compiler has no such topology.
  """
  try:
    if target.chip.platform == "cuda":
      found = topologies.get_topology_desc(
        platform="cuda", topology=f"1x1x{target.devices}", target_config=_gpu_config(target.chip)
      )
    else:
      found = topologies.get_topology_desc(
        platform="tpu",
        topology_name=f"{target.kind}:{'x'.join(map(str, target.shape))}",
        chips_per_host_bounds=(*target.host, 1)[:3],
        # The two cores of a v4 chip are one device, as they are on a machine with TPUs.
        **({"chip_config_name": "megacore"} if target.kind == "v4" else {}),
      )
  except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
    said = " ".join(str(error).split())[:300]
    raise InputError(
      f"--target {target.name}: the compiler has no such devices ({said}): check the shape, and "
      "the versions against the extra `target` in pyproject.toml"
    ) from error
  if len(found.devices) != target.devices:
    raise InputError(
      f"--target {target.name}: expected {target.devices} devices, the compiler has "
      f"{len(found.devices)}: check the versions against the extra `target` in "
      "pyproject.toml"
    )
  return list(found.devices)


def _gpu_config(chip):
  """XLA's GpuTargetConfigProto of a `Chip`, as text."""
  known = dict(chip.gpu)
  capability = known.pop("capability")
  fields = "\n".join(f"  {key}: {value}" for key, value in known.items())
  return (
    f"gpu_device_info {{\n{fields}\n  cuda_compute_capability {{ major: {capability} }}\n}}\n"
    'platform_name: "CUDA"\n'
    "dnn_version_info { major: 9 minor: 10 }\n"
    "runtime_version { major: 12 minor: 8 }\n"
  )


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A compiled program; all figures are for one device.

  Attributes:
    memory: bytes of arguments, outputs, temporaries and the program itself; if the program does not
      fit, the bytes that it would need, from the compiler's message.
    fits: whether the chip has that much memory.
    seconds: time to compile, including tracing, s.
    cpu_seconds: processor time to compile, over all cores, s.
    flops: floating-point operations by the compiler's count; None if it gives none.
    bytes: bytes read and written by the compiler's count; None if it gives none.
    touched: bytes of the arguments and results, the least that it reads and writes; None if the
      program does not fit.
  """

  memory: float
  fits: bool
  seconds: float
  cpu_seconds: float
  flops: float | None = None
  bytes: float | None = None
  touched: float | None = None


def memory_of(said):
  """Bytes of a device that a program needs, from its `memory_analysis`."""
  return (
    said.argument_size_in_bytes
    + said.output_size_in_bytes
    - said.alias_size_in_bytes  # results that reuse the memory of arguments
    + said.temp_size_in_bytes
    + said.generated_code_size_in_bytes
  )


def compile_for(chip, function, arguments):
  """Compiles a program.

  Args:
    chip: the `Chip` of the devices.
    function: a function that is jitted or pmapped for `devices`.
    arguments: its arguments, trees of `jax.ShapeDtypeStruct`.

  Returns:
    `Compiled`.

  Raises:
    InputError: the compiler fails for another reason than too little memory.
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
  memory = memory_of(said)
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
  """The bytes that a program would need, from an error about memory; None for any other error."""
  if "RESOURCE_EXHAUSTED" not in message:
    return None
  found = _TOO_LARGE.search(message)
  if found is None:
    return None
  number, unit = (group for group in found.groups() if group is not None)
  return float(number) * _UNITS[unit]


def roofline(chip, dtype, flops, moved):
  """Estimates the time of a program on a chip at its peak rates; nothing is run.

  It is the longer of two times: FLOPs ÷ peak FLOP/s, and bytes ÷ bandwidth. The estimate is as good
  as the bytes: the compiler's count may include data that never leaves the chip, and the bytes of
  arguments and results lack all intermediate results. Communication between devices is not
  included, nor are the extra passes of a `model.precision` above the chip's own.

  Args:
    chip: a `Chip`.
    dtype: compute type, "bfloat16" or "float32".
    flops: floating-point operations of a device.
    moved: bytes that it reads and writes; None if they are not known.

  Returns:
    Dictionary of `estimated_ms` and `bound`, the longer of the two: "compute" or "memory";
    "compute" if the bytes are not known.
  """
  compute = flops / (chip.bfloat16 if dtype == "bfloat16" else chip.float32)
  memory = 0.0 if moved is None else moved / chip.bandwidth
  bound = "memory" if memory > compute else "compute"
  return {"estimated_ms": 1e3 * max(compute, memory), "bound": bound}


def account_for(name, program, target, dtype):
  """Compiles a program, and logs and returns its memory, work and estimated time.

  Args:
    name: name of the program in the log.
    program: a `programs.Program`.
    target: a `chips.Target`.
    dtype: compute type, "bfloat16" or "float32".

  Returns:
    Dictionary for one device:

      images_a_device: images of a batch.
      memory_mb, memory_available_mb: MiB that it needs and that the chip has.
      fits: whether that is enough.
      compile_s, compile_cpu_s: time and processor time to compile, s.
      flops: floating-point operations.
      flops_from: "compiler", or "formula" if the compiler gives none or counts loops once.
      bytes: bytes read and written; None if the program does not fit and the compiler gives none.
      bytes_from: "compiler", or "arguments and results", which is a lower bound.
      estimated_ms, bound: estimate of `roofline`, only if the program fits.

  Raises:
    InputError: the compiler fails for another reason than too little memory.
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
    result |= roofline(target.chip, dtype, result["flops"], moved)
  log(_describe(name, result))
  return result


def _describe(name, result):
  """The dictionary of `account_for` in one line."""
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


def largest_batch(memory_of, available, unit, known):
  """Finds the largest batch that fits into the memory, with few compilations.

  Memory is nearly linear in the batch. A line through two batches predicts the largest one, and
  compiling that one checks the prediction. If it was wrong, the next line goes through the batches
  on both sides of the limit. The batch that is returned was compiled; if memory is not linear,
  somewhat larger ones may fit, too.

  Args:
    memory_of: function of a number of images that compiles for that batch and returns its bytes.
    available: bytes of memory.
    unit: batches are multiples of it.
    known: {images: bytes} of the batches that are compiled already, one or more.

  Returns:
    Dictionary of `largest_batch`, images, or 0 if not even `unit` fits, and
    `largest_batch_memory_mb`, its MiB, or None.
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
  """The largest batch, a multiple of `unit`, by the line through the two batches at the limit."""
  fitting = sorted(images for images in known if known[images] <= available)
  too_many = sorted(images for images in known if known[images] > available)
  low, high = [*fitting[-1:], *too_many[:1]] if fitting and too_many else sorted(known)[-2:]
  if too_many and not fitting:
    low, high = too_many[:2]
  slope = (known[high] - known[low]) / (high - low)
  if slope <= 0:  # the line predicts nothing
    return fitting[-1] if fitting else unit
  images = int(low + (available - known[low]) / slope) // unit * unit
  return max(unit, min([images, *(many - unit for many in too_many)]))
