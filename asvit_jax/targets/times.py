"""Times of the parts of a network on a TPU that is not here, by its compiler's estimates.

They replace the times that `pacing.table` measures, to calibrate a network for a speed without the
chip.
"""

import dataclasses
import importlib.metadata
import re

import jax
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import Progress, log
from asvit_jax.network import Network
from asvit_jax.pacing import cache, prediction, speeds, table
from asvit_jax.targets import chips, compiling, process

_LEAST_MS = 1e-6  # time of a part for which the compiler gives no estimate

# Lines of a compiled program as libtpu writes it.
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_OPERATION = re.compile(r"= .*? ([a-z][\w\-]*)\(")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=(%?[\w.\-]+)")


def estimated_times(network, target, batch=speeds.BATCH):
  """Estimates the `pacing.table.Table` of a TPU that is not here, for `Network.calibrate`.

  It is cached like measured tables (docs/speed.md). The first time takes minutes.

  Args:
    network: the `Network` that will be calibrated.
    target: name of a TPU, such as "tpu:v5e:1x1"; if it has several chips, each runs its own batch.
    batch: images per batch.

  Raises:
    InputError: the name is not that of a TPU, the network does not prune, or the compiler is not
      installed.
  """
  if not isinstance(network, Network):
    raise InputError(f"network is of type {type(network).__name__}: expected a Network")
  speeds.check_prunes(network.arch)
  batch, target = speeds.check_batch(batch), tpu_target(target)
  job = {
    "what": "times",
    "architecture": network.arch.to_json(),
    "dtype": network.dtype,
    "batch": batch,
  }

  def estimated():
    log(f"estimating times of the network's parts on {target.kind}, batch {batch}: takes minutes")
    answer = process.run(job, target)
    ms = {(group, part, width): value for group, part, width, value in answer["ms"]}
    curves = table.curves_of(network.arch, ms)
    device = f"{target.kind}, by its compiler's estimates"
    of = table.describe_network(network)
    found = table.Table(device, "tpu", True, of, batch, 0.0, 0.0, curves)
    whole = dataclasses.replace(network.arch, prune_before=(), stage_weights=())
    return dataclasses.replace(found, dense=prediction.fixed_ms(found, whole, ()))

  process.environment(target)  # raises InputError if the compiler is not installed
  of = {
    "platform": "tpu",
    "target": target.kind,
    "jax": jax.__version__,
    "libtpu": importlib.metadata.version("libtpu"),
  }
  return cache.load_or_make(network, batch, of, estimated)


def tpu_target(name):
  """The `chips.Target` of a name; raises InputError unless it is a TPU."""
  target = chips.parse_target(name)
  if target.chip.platform != "tpu":
    raise InputError(
      f"--target {name}: the compiler for NVIDIA's GPUs estimates no times: expected a TPU, such "
      "as tpu:v5e:1x1; on a machine with the GPU, leave --target out"
    )
  return target


def compile_parts(target, arch, dtype, batch):
  """Compiles the parts of a network for a TPU; runs in the process of `process.run`.

  Args:
    target: a `chips.Target`.
    arch: an `Architecture` that prunes.
    dtype: compute type, "float32" or "bfloat16".
    batch: images per batch.

  Returns:
    Dictionary of `ms`, a list of [images at once, part, number of tokens, ms].
  """
  from asvit_jax.network import create

  device, ms = jax.sharding.SingleDeviceSharding(compiling.devices(target)[0]), []
  parts = table.programs(create(arch, dtype=dtype).dense, batch, "tpu")
  progress = Progress("compiling parts, programs", len(parts))
  for done, (key, (function, arguments)) in enumerate(parts.items(), 1):
    shapes = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype, sharding=device), arguments
    )
    text = jax.jit(function).lower(*shapes).compile().as_text()
    ms.append([*key, max(1e3 * count_cycles(text) / target.chip.clock, _LEAST_MS)])
    progress.update(done)
  return {"ms": ms}


def count_cycles(text):
  """The cycles of one run of a program, by the schedule of a TPU's compiler: a model, not measured.

  The compiler writes its estimate of most operations into the text of the program. The sums rank
  programs for one chip. They do not include waiting for the host, nor Pallas kernels, for which the
  compiler gives no estimate. A loop counts as often as the compiler knows that it runs, otherwise
  once; a conditional counts as its most expensive branch.

  Args:
    text: text of the program, compiled for a TPU.

  Returns:
    Cycles, a float.
  """
  computations, entry, name = {}, None, None
  for line in text.splitlines():
    if head := _COMPUTATION.match(line):
      name = head.group(2)
      computations[name] = []
      entry = name if head.group(1) else entry
    elif name is not None and _OPERATION.search(line):
      computations[name].append(line)
  return _sum(computations, entry)


def _sum(computations, name):
  return sum(_of_line(computations, line) for line in computations[name])


def _of_line(computations, line):
  found = _CYCLES.search(line)
  cycles = float(found.group(1)) if found else 0.0
  operation = _OPERATION.search(line).group(1)
  if operation == "while":
    trips = _TRIPS.search(line)
    body = _sum(computations, _called(line, "body"))
    return cycles + (float(trips.group(1)) if trips else 1.0) * body
  if operation == "conditional":
    branches = ",".join(many or one for many, one in _BRANCHES.findall(line)).split(",")
    return cycles + max(_sum(computations, b.strip().lstrip("%")) for b in branches)
  if operation == "call":
    return cycles + _sum(computations, _called(line, "to_apply"))
  return cycles


def _called(line, attribute):
  return re.search(rf"{attribute}=%?([\w.\-]+)", line).group(1)
