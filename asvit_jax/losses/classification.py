"""Distance from the labels, by the criterion of the config."""

import jax
import jax.numpy as jnp
import optax


class Classification:
  """The class head learns by itself.

  What an auxiliary head says of patch tokens learns from the teacher's (`distillation`), or in a
  dense network from the image's label, by half, as LV-ViT weighs its token labels
  (arXiv:2104.10858).
  """

  def applies(self, arch, prunes):
    """To every network."""
    return True

  def __call__(self, outputs, batch):
    """The value of the term, (), see `losses`."""
    loss = batch.criterion(outputs.class_logits, batch.targets)
    if outputs.aux_logits is not None and batch.teacher is None:
      loss += 0.5 * batch.criterion(outputs.aux_logits, batch.targets[:, None])
    return loss


classification = Classification()


def smooth_labels(labels, classes, smoothing):
  """(b,) int labels -> (b, classes) float32 targets with label smoothing."""
  return optax.smooth_labels(jax.nn.one_hot(labels, classes, dtype=jnp.float32), smoothing)
