"""What the parts of a network take on a TPU that is not here, by its compiler's estimates.

In place of what `pacing.table` measures, so that a speed can be asked for before there is a chip.
"""

import dataclasses
import importlib.metadata

import jax
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import Progress, log
from asvit_jax.pacing import cache, prediction, speeds, table
from asvit_jax.targets import cycles, names, process, topology

_LEAST_MS = 1e-6  # of a part that the compiler says nothing of


def estimated_times(network, target, batch=speeds.BATCH):
  """The `pacing.table.Table` of a device that is not here, estimated, for `Network.calibrate`.

  It is kept as measured ones are (docs/speed.md); the first time takes minutes.

  Args:
    network: the `Network` that will be calibrated.
    target: name of a TPU, as "tpu:v5e:1x1"; of several chips, each runs a batch of its own.
    batch: images a batch.

  Raises:
    InputError: another name, a network that prunes nowhere, or a compiler that is not installed.
  """
  speeds.check_prunes(network.arch)
  batch, target = speeds.check_batch(batch), check(target)
  job = {
    "what": "times",
    "architecture": network.arch.to_json(),
    "dtype": network.dtype,
    "batch": batch,
  }

  def estimated():
    log(f"estimating what parts of the network take on {target.kind}, batch {batch}: minutes")
    answer = process.run(job, target)
    ms = {(group, part, width): value for group, part, width, value in answer["ms"]}
    curves = table.curves_of(network.arch, ms)
    device = f"{target.kind}, by its compiler's estimates"
    of = table.describe_network(network)
    found = table.Table(device, "tpu", True, of, batch, 0.0, 0.0, curves)
    whole = dataclasses.replace(network.arch, prune_before=(), stage_weights=())
    return dataclasses.replace(found, dense=prediction.fixed_ms(found, whole, ()))

  process.environment(target)  # raises where the compiler is not installed
  of = {
    "platform": "tpu",
    "target": target.kind,
    "jax": jax.__version__,
    "libtpu": importlib.metadata.version("libtpu"),
  }
  return cache.load_or_make(network, batch, of, estimated)


def check(name):
  """The `names.Target` of a name; raises InputError where it is none of a TPU."""
  target = names.parse(name)
  if target.chip.platform != "tpu":
    raise InputError(
      f"--target {name}: the compiler for NVIDIA's GPUs estimates no times: expected a TPU, such "
      "as tpu:v5e:1x1; on a machine with the GPU, leave --target out"
    )
  return target


def compile_parts(target, arch, dtype, batch):
  """What runs in the worker.

  Args:
    target: a `names.Target`.
    arch: an `Architecture` that prunes.
    dtype: compute type, "float32" or "bfloat16".
    batch: images a batch.

  Returns:
    Dictionary of `ms`, [[images at once, part, number of tokens, ms]].
  """
  from asvit_jax.network import create

  device, ms = jax.sharding.SingleDeviceSharding(topology.devices(target)[0]), []
  parts = table.programs(create(arch, dtype=dtype).dense, batch, "tpu")
  progress = Progress("compiling parts, programs", len(parts))
  for done, (key, (function, arguments)) in enumerate(parts.items(), 1):
    shapes = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype, sharding=device), arguments
    )
    text = jax.jit(function).lower(*shapes).compile().as_text()
    ms.append([*key, max(1e3 * cycles.count(text) / target.chip.clock, _LEAST_MS)])
    progress.update(done)
  return {"ms": ms}
