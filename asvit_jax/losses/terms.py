"""The terms of the training objective (arXiv:2209.13802, Eq. 9-12).

A term is an object with

  applies(arch, prunes): whether the term applies to a network of this `Architecture`; `prunes` says
    whether the network is trained with thresholds, and so with a teacher.
  __call__(outputs, batch): the () value of the term for a forward pass, whose `Outputs` are
    `outputs`; `batch` is an `objective.Batch`.

Every term that applies is logged, and added to the loss with its weight in `config.loss`.
"""

import jax
import jax.numpy as jnp

from asvit_jax.core.parts import Table


class Classification:
  """The criterion between the class head's logits and the labels.

  An auxiliary head on patch tokens learns from the teacher (`TokenDistillation`). In a dense
  network, which has no teacher, it learns from the image's label with weight 0.5, as LV-ViT weighs
  its token labels (arXiv:2104.10858).
  """

  def applies(self, arch, prunes):
    """Applies to every network."""
    return True

  def __call__(self, outputs, batch):
    """The value of the term, ()."""
    loss = batch.criterion(outputs.class_logits, batch.targets)
    if outputs.aux_logits is not None and batch.teacher is None:
      loss += 0.5 * batch.criterion(outputs.aux_logits, batch.targets[:, None])
    return loss


class Budget:
  """The absolute difference between the batch's mean GMACs per image and the target, in GMACs."""

  def applies(self, arch, prunes):
    """Applies to networks with thresholds."""
    return prunes

  def __call__(self, outputs, batch):
    """The value of the term, ()."""
    del outputs
    return distance(batch.mean_gmacs, batch.target_gmacs)


class Distillation:
  """KL divergence of the class head from the teacher's, the mean over the batch."""

  def applies(self, arch, prunes):
    """Applies to networks with a teacher."""
    return prunes

  def __call__(self, outputs, batch):
    """The value of the term, ()."""
    return divergence(outputs.class_logits, batch.teacher.class_logits).mean()


class TokenDistillation:
  """KL divergence of the auxiliary head from the teacher's, the mean over the patch tokens kept.

  These are the tokens that the last stage keeps. The target of a merged token is the teacher's
  prediction for the token's own patch, not a mean over all patches merged into it. Merged patches
  are similar, and so are the teacher's predictions for them; and the maximum of the logits over
  the tokens is half of the network's prediction (`VisionTransformer.predict`), which a mean over
  patches would flatten. A merged token counts once, whatever its size, as in that maximum.
  """

  def applies(self, arch, prunes):
    """Applies to networks with a teacher and an auxiliary head."""
    return prunes and arch.aux_head

  def __call__(self, outputs, batch):
    """The value of the term, ()."""
    of_tokens = divergence(outputs.aux_logits, batch.teacher.aux_logits)  # (b, n)
    keep = jax.lax.stop_gradient(outputs.keep[:, -1])
    kept = jnp.maximum(jax.lax.stop_gradient(batch.mean_kept), 1e-6)
    return batch.mean((of_tokens * keep).sum(axis=-1)) / kept


LOSSES = Table(
  "loss term",
  "loss",
  {
    "classification": Classification(),
    "budget": Budget(),
    "distillation": Distillation(),
    "token_distillation": TokenDistillation(),
  },
)


def divergence(logits, teacher_logits):
  """KL(teacher ‖ student), (..., classes) -> (...) float32."""
  student = jax.nn.log_softmax(logits.astype(jnp.float32))
  teacher = jax.nn.log_softmax(teacher_logits.astype(jnp.float32))
  return (jnp.exp(teacher) * (teacher - student)).sum(axis=-1)


def distance(mean_gmacs, target_gmacs):
  """The absolute difference of two numbers of GMACs."""
  return jnp.abs(mean_gmacs - target_gmacs)
