"""What a network is merged into does not depend on how its random keys are drawn."""

import jax
import jax.numpy as jnp
import pytest
import tiny
from flax import nnx

from asvit_jax.vit import transformer


@pytest.mark.parametrize(
  "changes", [{}, {"stem": "conv", "layer_scale": True, "dist_token": True}, tiny.LV], ids=str
)
def test_one_key_gives_the_structure_of_a_random_network(changes):
  arch = tiny.arch(depth=1, prune_before=(), **changes)
  graphdef, shapes = transformer._abstract(arch, jnp.dtype("float32"))
  network = transformer.VisionTransformer(arch, rngs=nnx.Rngs(0))
  expected, state = nnx.split(network)
  assert graphdef == expected
  found = jax.tree.map(lambda x: (x.shape, x.dtype), shapes)
  assert found == jax.tree.map(lambda x: (x.shape, x.dtype), nnx.to_pure_dict(state))
