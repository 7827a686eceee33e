"""Weights as safetensors files."""

import json

import numpy as np
import safetensors.numpy

from asvit_jax import vit
from asvit_jax.core import storage
from asvit_jax.weights.formats.safetensors import DESCRIPTION, THRESHOLDS
from asvit_jax.weights.names import to_timm


def save(path, params, description=None, thresholds_as_metadata=False):
  """Writes parameters, thresholds included, as a safetensors file; all of it or nothing.

  Args:
    path: of the file.
    params: of a network.
    description: `Network.describe()`, which goes into the file's header; None for none.
    thresholds_as_metadata: in the header instead of beside the tensors, so that timm loads the file
      as it is. They are read from either.

  Raises:
    InputError: the file cannot be written.
  """
  metadata = {"format": "pt"}  # timm and transformers look for it
  if description is not None:
    metadata[DESCRIPTION] = json.dumps(description)
  if thresholds_as_metadata and vit.prunes(params):
    metadata[THRESHOLDS] = json.dumps(np.asarray(params["thresholds"]).tolist())
    params = vit.without_thresholds(params)
  # Written by us: safetensors itself would make the file readable by its owner alone.
  storage.write(path, safetensors.numpy.save(to_timm(params), metadata), "weights")
