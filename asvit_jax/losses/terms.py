"""The terms of the training objective (arXiv:2209.13802, Eq. 9-12).

A term is an object with

  applies(arch, prunes): whether a network of this `Architecture` has it; `prunes` says whether it
    is trained with thresholds, and so with a teacher.
  __call__(outputs, batch): its value, (), for a forward pass; `outputs` are its `Outputs`, and
    `batch` is an `objective.Batch`.

Every term that applies is computed and logged, times its weight in `config.loss`.
"""

import jax
import jax.numpy as jnp

from asvit_jax.core.parts import Table


class Classification:
  """The class head learns by itself.

  What an auxiliary head says of patch tokens learns from the teacher's (`distillation`), or in a
  dense network from the image's label, by half, as LV-ViT weighs its token labels
  (arXiv:2104.10858).
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
  """How far the batch's mean GMACs are from the target, in GMACs."""

  def applies(self, arch, prunes):
    """Applies where there are thresholds to move."""
    return prunes

  def __call__(self, outputs, batch):
    """The value of the term, ()."""
    del outputs
    return distance(batch.mean_gmacs, batch.target_gmacs)


class Distillation:
  """Divergence of the class head from the teacher's, the mean over the batch."""

  def applies(self, arch, prunes):
    """Applies where there is a teacher."""
    return prunes

  def __call__(self, outputs, batch):
    """The value of the term, ()."""
    return divergence(outputs.class_logits, batch.teacher.class_logits).mean()


class TokenDistillation:
  """Divergence of the auxiliary head, the mean over the patch tokens that the last stage keeps.

  A token that others were merged into is taught what the teacher says of its own patch, not a mean
  over all the patches that it stands for. It took over those most like itself, of which the teacher
  says much the same; and the largest logits over the tokens left are half of the prediction
  (`VisionTransformer.predict`), which a mean over patches would flatten. It counts once, as in that
  maximum, whatever its size.
  """

  def applies(self, arch, prunes):
    """Applies where there are a teacher and an auxiliary head."""
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
  """How far apart two numbers of GMACs are."""
  return jnp.abs(mean_gmacs - target_gmacs)
