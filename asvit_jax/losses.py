"""The training objective (arXiv:2209.13802, Eq. 9-12, with the weights of the authors' code)."""

import jax
import jax.numpy as jnp
import optax


def smooth_labels(labels, classes, smoothing):
  """(b,) int labels -> (b, classes) float32 targets with label smoothing."""
  return optax.smooth_labels(jax.nn.one_hot(labels, classes), smoothing)


def cross_entropy(logits, targets):
  """Mean over the batch; logits and soft targets are (b, classes)."""
  return optax.softmax_cross_entropy(logits, targets).mean()


def distillation(logits, teacher_logits):
  """KL(teacher ‖ student), (..., classes) -> (...)."""
  student = jax.nn.log_softmax(logits)
  teacher = jax.nn.log_softmax(teacher_logits)
  return (jnp.exp(teacher) * (teacher - student)).sum(axis=-1)


def budget(mean_gmacs, target_gmacs):
  """How far the batch's mean GMACs are from the target, in GMACs."""
  return jnp.abs(mean_gmacs - target_gmacs)
