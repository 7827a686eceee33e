"""Cross-entropy with the labels."""

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
    """See `losses`."""
    loss = cross_entropy(outputs.class_logits, batch.targets)
    if outputs.aux_logits is not None and batch.teacher is None:
      loss += 0.5 * cross_entropy(outputs.aux_logits, batch.targets[:, None])
    return loss


classification = Classification()


def smooth_labels(labels, classes, smoothing):
  """(b,) int labels -> (b, classes) float32 targets with label smoothing."""
  return optax.smooth_labels(jax.nn.one_hot(labels, classes, dtype=jnp.float32), smoothing)


def cross_entropy(logits, targets):
  """Mean over all predictions.

  Args:
    logits: (..., classes).
    targets: (..., classes) soft labels, of a shape that broadcasts to that of the logits.

  Returns:
    () float32.
  """
  logits, targets = logits.astype(jnp.float32), targets.astype(jnp.float32)
  return optax.softmax_cross_entropy(logits, targets).mean()
