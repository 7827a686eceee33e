"""The mean number of patches that thresholds keep: the counts of fixed execution."""

import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.sparsity.counts import mean_of
from asvit_jax.vit import images as image_arrays


def mean_counts(network, images):
  """Rounded mean counts of kept patches, one row per budget; see `Network.mean_counts`."""
  network.check_execution("masked")
  at = [network.at(budget) for budget in network.budgets] or [network]
  kept = [[] for _ in at]
  for batch in image_arrays.batches(images, network.arch, network.preprocessing):
    for found, one in zip(kept, at, strict=True):
      outputs = one(batch["image"], "masked")
      if not np.isfinite(np.asarray(outputs.logits)[batch["valid"]]).all():
        raise InputError(
          "the network's predictions for these images are not finite (NaN or infinite), so what "
          "its thresholds keep means nothing: check its weights, which may be damaged or too large"
        )
      found.append(np.asarray(outputs.kept)[batch["valid"]])
  return tuple(mean_of(np.concatenate(found)) for found in kept)
