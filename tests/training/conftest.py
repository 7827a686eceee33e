"""What runs of the tiny network start from."""

import pytest
import tiny

from asvit_jax.weights import saving


@pytest.fixture
def dense_weights(tmp_path):
  """A file of the dense network `tiny.TRAINED`, which says nothing of itself."""
  path = tmp_path / "dense.safetensors"
  saving.save(path, tiny.params(tiny.TRAINED.dense))
  return path
