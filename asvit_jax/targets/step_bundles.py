"""Estimates a training step on a TPU that is not here, by XLA alone and by kernels.

python -m asvit_jax.targets.step_bundles --target tpu:v5e:1x1 --variant deit_s --batch 64

The step is that of the recipe `as_deit_s`, whole: student, teacher, gradients and optimizer. As in
`bundles`, the estimate of a kernel is what the compiler schedules for it, a lower bound, and that
of XLA's operations is the compiler's. Nothing is run. Compiling takes minutes a step.
"""

import collections
import os
import re
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import flags

from asvit_jax.core import command, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.targets.bundles import CORES, read_bundles

RECIPE = ("as_deit_s", "0.65")
# By name: the keys of `config.model` that differ from the recipe's.
STEPS = {
  "xla": {},
  "kernels": {"kernels": True},
  "xla-remat": {"remat": True},
  "kernels-remat": {"kernels": True, "remat": True},
}

# How a call of a kernel, and its name, look in a compiled program.
_KERNEL = re.compile(r'custom_call_target="tpu_custom_call".*?op_name="[^"]*?/?(\w+)/pallas_call"')


def define_flags():
  """Defines the flags; not at import, where they would clash with the flags of other tools."""
  flags.DEFINE_string("target", "tpu:v5e:1x1", "TPU to compile for.")
  flags.DEFINE_string("variant", "deit_s", "Name of the network.")
  flags.DEFINE_string("dtype", "bfloat16", "Compute type.")
  flags.DEFINE_integer("batch", 64, "Images of a step.", lower_bound=1)
  flags.DEFINE_list("steps", list(STEPS)[:2], f"Of {', '.join(map(repr, STEPS))}: see `STEPS`.")


def main(_):
  """Estimates steps, and their parts alone.

  Returns:
    Dictionary of `kernels`, {name: cycles of a call}; `parts`, see `of_parts`; `steps`, {name:
    dictionary of `xla_ms`, `kernels_ms`, `ms`, `memory_mb` and `compile_s`}; and the arguments.

  Raises:
    InputError: the kernels do not cover the network or the target, or the compiler is not
      installed.
  """
  from asvit_jax.sparsity import step_kernels
  from asvit_jax.targets import process, times
  from asvit_jax.vit import VARIANTS

  asked = flags.FLAGS
  if asked.variant not in VARIANTS:
    raise InputError(f"--variant {asked.variant}: expected one of {', '.join(VARIANTS)}")
  if not set(asked.steps) <= set(STEPS):
    raise InputError(f"--steps {','.join(asked.steps)}: expected some of {', '.join(STEPS)}")
  arch = VARIANTS[asked.variant]
  reason = step_kernels.refuses(arch, np.dtype(asked.dtype))
  if reason:
    raise InputError(f"--variant {asked.variant}: the kernels do not run it, as {reason}")
  target = times.tpu_target(asked.target)
  job = {"variant": asked.variant, "dtype": asked.dtype, "batch": asked.batch}
  log("compiling the kernels")
  kernels = process.run({"what": "step kernels"} | job, target)
  log("compiling the parts")
  cycles = process.run({"what": "step parts"} | job, target)
  parts = {name: ms_of(target, row, kernels) for name, row in cycles.items()}
  for name, row in parts.items():
    _log(name, row)
  steps = {}
  for name in asked.steps:
    log(f"compiling the step by {name}")
    compiled = process.run({"what": "step cycles", "changes": STEPS[name]} | job, target)
    more = {key: compiled[key] for key in ("memory_mb", "compile_s")}
    steps[name] = ms_of(target, compiled, kernels) | more
    _log(f"step by {name}", steps[name])
  return job | {"target": target.name, "kernels": kernels, "parts": parts, "steps": steps}


def _log(name, row):
  log(f"{name}: {row['ms']:.2f} ms, of which kernels {row['kernels_ms']:.2f}")


def ms_of(target, compiled, kernels):
  """Milliseconds of a compiled program: `xla_ms`, `kernels_ms` and their sum, `ms`.

  Args:
    target: a `chips.Target`.
    compiled: dictionary of `cycles`, of XLA's operations; and `calls`, {kernel: number}.
    kernels: {kernel: cycles of a call}.
  """
  of_kernels = sum(count * kernels[name] for name, count in compiled["calls"].items())
  xla_ms, kernels_ms = (
    1e3 * cycles / target.chip.clock
    for cycles in (compiled["cycles"], of_kernels / CORES.get(target.kind, 1))
  )
  return {"xla_ms": xla_ms, "kernels_ms": kernels_ms, "ms": xla_ms + kernels_ms}


def calls_in(text):
  """{kernel: number of its calls} in the text of a compiled program; those in loops count once."""
  return dict(collections.Counter(_KERNEL.findall(text)))


def of_kernels(target, variant, dtype, batch):
  """Compiles the kernels; runs in the process of `process.run`, before libtpu is loaded.

  Returns:
    {kernel: bundles of a call}, those of all its programs.
  """
  with tempfile.TemporaryDirectory() as directory:
    given = os.environ.get("LIBTPU_INIT_ARGS", "")
    os.environ["LIBTPU_INIT_ARGS"] = (
      f"{given} --xla_jf_dump_to={directory} --xla_jf_dump_llo_text=true"
    )
    import jax

    from asvit_jax.sparsity.kernels.tpu_rows import TILE

    found = {}
    for by, function, arguments, _ in _parts(target, variant, dtype, batch):
      if by != "kernels":
        continue
      for path in Path(directory).iterdir():
        storage.remove(path)
      text = jax.jit(function).lower(*arguments).compile().as_text()
      scheduled = read_bundles(Path(directory))
      for name in calls_in(text):
        tiles = -(-arguments[0].size // arguments[0].shape[-1] // TILE)
        found[name] = scheduled[name] * (tiles if "mlp" in name else batch)
    return found


def of_parts(target, variant, dtype, batch):
  """Compiles attention and the MLP with its norm, for itself; runs in the process of `process.run`.

  Returns:
    {part: dictionary of `cycles` and `calls`, see `ms_of`}; with gradients, the forward pass is
    included.
  """
  import jax

  from asvit_jax.targets import times

  found = {}
  for by, function, arguments, name in _parts(target, variant, dtype, batch):
    text = jax.jit(function).lower(*arguments).compile().as_text()
    found[f"{name} by {by}"] = {"cycles": times.count_cycles(text), "calls": calls_in(text)}
  return found


def _parts(target, variant, dtype, batch):
  """Tuples of "xla" or "kernels", a function, the shapes of its arguments, and the part's name."""
  import jax
  import jax.numpy as jnp

  from asvit_jax import vit
  from asvit_jax.sparsity import step_kernels
  from asvit_jax.sparsity.attentions import softmax
  from asvit_jax.targets import compiling

  arch = vit.VARIANTS[variant]
  here = jax.sharding.SingleDeviceSharding(compiling.devices(target)[0])
  n, d = arch.prefix_tokens + arch.patches, arch.width

  def shape(*sizes, dtype=dtype):
    return jax.ShapeDtypeStruct(sizes, jnp.dtype(dtype), sharding=here)

  def attended(by, masked):
    attention = step_kernels.softmax if by == "kernels" else softmax

    def run(qkv, *rows):
      q, k, v = (a.reshape(batch, n, arch.heads, -1) for a in jnp.split(qkv, 3, axis=-1))
      attend = attention.masked if masked else attention.dense
      return attend(q, k, v, *rows)[0].reshape(batch, n, d)

    return run

  def fed_forward(by):
    def run(x, params):
      model = vit.model(arch, params, dtype=dtype)
      if by == "kernels":
        step_kernels.train_mode(model)
      return jnp.swapaxes(model.blocks[0].fed_forward(jnp.swapaxes(x, 0, 1)), 0, 1)

    return run

  params = jax.tree.map(lambda a: shape(*a.shape, dtype=a.dtype), vit.specs(arch))
  tokens, qkv = shape(batch, n, d), shape(batch, n, 3 * d)
  row = shape(batch, n, dtype="float32")
  # In the order in which XLA stores them inside of a network.
  mlp = (shape(n, batch, d), params)
  for by in ("xla", "kernels"):
    for name, function, arguments, result in (
      ("dense attention", attended(by, False), (qkv,), tokens),
      ("masked attention", attended(by, True), (qkv, row), tokens),
      ("masked attention of sizes", attended(by, True), (qkv, row, row), tokens),
      ("mlp", fed_forward(by), mlp, mlp[0]),
    ):
      yield by, function, arguments, name

      def gradients(*arguments, function=function):
        *arguments, gradient = arguments
        y, back = jax.vjp(function, *arguments)
        return y, back(gradient)

      yield by, gradients, (*arguments, result), f"{name} with gradients"


def cycles_of(target, variant, dtype, batch, changes):
  """Compiles a step for all chips of a target; runs in the process of `process.run`.

  Args:
    target: a `chips.Target`.
    variant: name of the network.
    dtype: compute type.
    batch: images on a device.
    changes: {key of `config.model`: value} that differ from the recipe's.

  Returns:
    Dictionary of `cycles`, of all operations but kernels; `calls`, {kernel: number}; `memory_mb` of
    a device; and `compile_s`.
  """
  from asvit_jax.config.plan import unchecked
  from asvit_jax.core import recipes
  from asvit_jax.targets import compiling, programs, times

  config = recipes.load(*RECIPE)
  config.model.variant, config.model.dtype = variant, dtype
  config.model.update(changes)
  config.batch_size = batch * target.devices
  # The number of steps only changes the schedule of the learning rate.
  plan = unchecked(config).of_images(1_000_000)
  network = programs.untrained(plan)
  built = programs.step_program(plan, network, compiling.devices(target))
  start = time.perf_counter()
  program = built.function.lower(*built.arguments).compile()
  seconds, text = time.perf_counter() - start, program.as_text()
  return {
    "cycles": times.count_cycles(text),
    "calls": calls_in(text),
    "memory_mb": compiling.memory_of(program.memory_analysis()) / 2**20,
    "compile_s": seconds,
  }


if __name__ == "__main__":
  define_flags()
  command.run(main)
