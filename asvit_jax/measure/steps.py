"""Correctness: a training step by kernels against the same step by XLA, on this device."""

import jax
import numpy as np
import optax

from asvit_jax.core.devices import precision
from asvit_jax.data.mixing import Mixing
from asvit_jax.measure.subjects import subject
from asvit_jax.measure.training import batch_of, plan_of
from asvit_jax.training import parallel
from asvit_jax.training.step import create_state, make_program

# In float32, at its full precision: shares of the loss, and of the norm of the gradient.
_LOSS, _GRADIENT = 1e-4, 1e-2


def run(arch, reduction, shares, images, a_device):
  """Compares the loss and the gradient of a step, in float32; interpreted on a CPU.

  Args:
    arch: an `Architecture`.
    reduction: one of `settings.REDUCTIONS`.
    shares: shares of the dense GMACs to calibrate for; the step trains for the first.
    images: number of images to calibrate on.
    a_device: images in a step on each device.

  Returns:
    List of a dictionary for JSON: `what`; `agrees`; `loss_error`, a share of the loss; and
    `gradient_error`, the norm of the difference of the gradients as a share of the norm. Or
    `refused`, why the kernels do not run here; or `error`, and `agrees` false.
  """
  from asvit_jax.sparsity import step_kernels  # Pallas takes a second to import

  platform = jax.default_backend()
  what = f"training step by kernels{', interpreted' if platform == 'cpu' else ''}"
  reason = step_kernels.refuses(arch, "float32")
  if reason is None and platform not in ("cpu", "tpu"):
    reason = f"they are for a TPU, and this is a {platform}"
  if reason is not None:
    return [{"what": what, "refused": reason}]
  try:
    with precision("highest"):
      loss, gradient = _step(arch, reduction, shares, images, a_device, False)
      if platform == "cpu":
        with step_kernels.interpreted():
          found = _step(arch, reduction, shares, images, a_device, True)
      else:
        found = _step(arch, reduction, shares, images, a_device, True)
  except Exception as error:  # of any kind, as compilers have their own
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return [{"what": what, "agrees": False, "error": said[:500]}]
  errors = abs(found[0] - loss) / abs(loss), _distance(found[1], gradient)
  agrees = errors[0] <= _LOSS and errors[1] <= _GRADIENT  # false for what is not a number
  loss_error, gradient_error = (float(e) if np.isfinite(e) else None for e in errors)
  return [
    {
      "what": what,
      "agrees": bool(agrees),
      "loss_error": loss_error,
      "gradient_error": gradient_error,
    }
  ]


def _step(arch, reduction, shares, images, a_device, kernels):
  """The loss and the gradient, as a list of arrays, of one step on random images."""
  network = subject(arch, reduction, shares, shares[0], images, "float32").network.with_counts(())
  plan = plan_of(network, shares[0], a_device, kernels).replace(mix=Mixing())
  optimizer = optax.sgd(1.0)  # the step subtracts the gradient
  program, _ = make_program(plan, network, optimizer)
  before = jax.device_get(network.params)
  state = parallel.replicate(create_state(network.params, optimizer, plan.ema_decay), plan.parallel)
  teacher = parallel.replicate(network.dense.params, plan.parallel)
  batch = parallel.shard(batch_of(network, plan), plan.parallel)
  state, metrics = parallel.unreplicate(program(state, teacher, batch), plan.parallel)
  gradient = jax.tree.map(lambda a, b: np.asarray(a) - b, before, state.params)
  return float(metrics["loss"]), jax.tree.leaves(gradient)


def _distance(ours, theirs):
  ours, theirs = (np.concatenate([a.ravel() for a in arrays]) for arrays in (ours, theirs))
  return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
