"""Inference, compiled for one device of a target."""

from asvit_jax import vit
from asvit_jax.network import Network
from asvit_jax.sparsity import complexity, schedule
from asvit_jax.targets import account, fitting, programs, topology
from asvit_jax.targets.compiling import compile_for


def compile_inference(target, arch, variant, dtype, budget, batch, executions):
  """Compiles executions of a network, with any parameters, at a batch size.

  Args:
    target: a `names.Target`.
    arch: an `Architecture` that prunes.
    variant: its name.
    dtype: compute type, "float32" or "bfloat16".
    budget: share of the dense GMACs, which says what packed and fixed execution compute.
    batch: images.
    executions: names of `EXECUTIONS`.

  Returns:
    Dictionary: `target`; of the last of the executions what `account.compiled` says, with `fits`
    for all of them, `estimated_images_per_s`, `largest_batch` and `largest_batch_memory_mb`; and
    `results`, {execution: what `account.compiled` says}.
  """
  scheduled = schedule.with_stage_weights(arch, budget)
  ratio = complexity.uniform_ratio(scheduled, complexity.target_gmacs(arch, budget))
  fixed = [schedule.uniform_counts(scheduled, ratio)]
  network = Network(arch, vit.specs(arch), dtype, variant=variant, counts=fixed)
  device = topology.devices(target)[0]

  def program(execution, images=batch):
    return programs.inference(network, execution, images, budget, device)

  results = {name: account.compiled(name, program(name), target, dtype) for name in executions}
  last = executions[-1]
  chosen = results[last]

  def memory_of(images):
    other = program(last, images)
    return compile_for(target.chip, other.function, other.arguments).memory

  largest = fitting.largest_batch(
    memory_of, target.chip.memory, 1, {batch: chosen["memory_mb"] * 2**20}
  )
  if chosen["fits"]:
    largest["estimated_images_per_s"] = 1e3 * batch / chosen["estimated_ms"]
  fits = all(result["fits"] for result in results.values())
  return {"target": target.name} | chosen | largest | {"fits": fits, "results": results}
