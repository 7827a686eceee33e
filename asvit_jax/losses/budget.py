"""Distance from the compute budget."""

import jax.numpy as jnp


class Budget:
  """How far the batch's mean GMACs are from the target, in GMACs."""

  def applies(self, arch, prunes):
    """Where there are thresholds to move."""
    return prunes

  def __call__(self, outputs, batch):
    """The value of the term, (), see `losses`."""
    del outputs
    return distance(batch.mean_gmacs, batch.target_gmacs)


budget = Budget()


def distance(mean_gmacs, target_gmacs):
  """How far apart two numbers of GMACs are."""
  return jnp.abs(mean_gmacs - target_gmacs)
