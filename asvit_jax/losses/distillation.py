"""Divergence from the dense teacher: of predictions, and of what patch tokens say."""

import jax
import jax.numpy as jnp


class Distillation:
  """Of the class head, the mean over the batch."""

  def applies(self, arch, prunes):
    """Where there is a teacher."""
    return prunes

  def __call__(self, outputs, batch):
    """The value of the term, (), see `losses`."""
    return divergence(outputs.class_logits, batch.teacher.class_logits).mean()


class TokenDistillation:
  """Of the auxiliary head, the mean over all patch tokens that the last stage keeps.

  A token that others were merged into is taught what the teacher says of its own patch, not a mean
  over all the patches that it stands for. It took over those most like itself, of which the teacher
  says much the same; and the largest logits over the tokens left are half of the prediction
  (`VisionTransformer.predict`), which a mean over patches would flatten. It counts once, as in that
  maximum, whatever its size.
  """

  def applies(self, arch, prunes):
    """Where there are a teacher and an auxiliary head."""
    return prunes and arch.aux_head

  def __call__(self, outputs, batch):
    """The value of the term, (), see `losses`."""
    of_tokens = divergence(outputs.aux_logits, batch.teacher.aux_logits)  # (b, n)
    keep = jax.lax.stop_gradient(outputs.keep[:, -1])
    kept = jnp.maximum(jax.lax.stop_gradient(batch.mean_kept), 1e-6)
    return batch.mean((of_tokens * keep).sum(axis=-1)) / kept


distillation = Distillation()
token_distillation = TokenDistillation()


def divergence(logits, teacher_logits):
  """KL(teacher ‖ student), (..., classes) -> (...) float32."""
  student = jax.nn.log_softmax(logits.astype(jnp.float32))
  teacher = jax.nn.log_softmax(teacher_logits.astype(jnp.float32))
  return (jnp.exp(teacher) * (teacher - student)).sum(axis=-1)
