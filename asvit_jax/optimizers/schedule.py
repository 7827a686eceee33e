"""The number of steps of a run, and its learning rate schedule."""

import dataclasses
import math

import jax.numpy as jnp
import optax

from asvit_jax.core.errors import InputError

MOST_STEPS = 2**31 - 1  # the devices count steps in int32


def total_steps(plan, images):
  """The number of training steps: `total_steps`, or else epochs × images ÷ batch size, rounded up.

  Args:
    plan: a `Plan`, or a config, of which `total_steps`, `epochs` and `batch_size` are read.
    images: number of images to train on.

  Raises:
    InputError: more steps than int32 can count.
  """
  if plan.total_steps is not None:
    return plan.total_steps
  steps = plan.epochs * images / plan.batch_size
  if steps > MOST_STEPS:
    raise InputError(
      f"epochs {plan.epochs:g} of {images:,} images are {steps:.3g} steps of {plan.batch_size} "
      f"images: expected at most {MOST_STEPS:,} steps"
    )
  return max(1, math.ceil(steps))


@dataclasses.dataclass(frozen=True)
class Schedule:
  """A learning rate as a function of the step: linear warm-up, then half a cosine.

  Attributes:
    peak: learning rate at the end of the warm-up.
    end: learning rate from step `decay_steps` on.
    warmup_steps: number of steps over which it rises from 0; with 0 it starts at the peak.
    decay_steps: the step at which it reaches `end`.
  """

  peak: float
  end: float
  warmup_steps: int
  decay_steps: int

  @classmethod
  def of(cls, plan, steps):
    """The schedule of a plan for a given number of steps.

    Args:
      plan: a `Plan`, or a config, of which `batch_size` and `optimizer` are read. `lr` and `end_lr`
        are for a batch of 512 and scale with the batch (arXiv:1706.02677). If
        `optimizer.decay_steps` is None, the learning rate decays over the whole run.
      steps: number of steps of the run.
    """
    scale, options = plan.batch_size / 512, plan.optimizer
    decay = options.decay_steps or steps
    return cls(options.lr * scale, options.end_lr * scale, int(options.warmup * decay), decay)

  def __call__(self, step):
    """The learning rate of a step, () int -> () float32."""
    rate = optax.warmup_cosine_decay_schedule(
      init_value=self.peak if self.warmup_steps == 0 else 0.0,
      peak_value=self.peak,
      warmup_steps=self.warmup_steps,
      decay_steps=max(self.decay_steps, 1),
      end_value=self.end,
    )
    # optax would compute in float64 if JAX has it enabled, with another result.
    return rate(jnp.asarray(step, jnp.float32))
