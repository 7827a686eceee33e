"""`for_execution` rounds the matrices of blocks once; what is computed stays the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.core import leaves
from asvit_jax.core.errors import InputError

ARCH = tiny.arch()
IMAGES = tiny.images(ARCH, 3)


@pytest.fixture(scope="module")
def network():
  return tiny.network(ARCH, dtype="bfloat16")


def is_matrix(name):
  return name.startswith("blocks.") and name.endswith(".kernel")


def test_matrices_of_blocks_are_rounded_once_and_nothing_else(network):
  given, found = (dict(leaves.named(a.params)) for a in (network, network.for_execution("masked")))
  assert sum(map(is_matrix, given)) == 4 * ARCH.depth
  for name, leaf in found.items():
    if is_matrix(name):
      assert leaf.dtype == jnp.bfloat16
      np.testing.assert_array_equal(leaf, given[name].astype(jnp.bfloat16), err_msg=name)
    else:
      assert leaf is given[name], name
  again = dict(leaves.named(network.for_execution("packed").params))
  assert all(again[name] is leaf for name, leaf in found.items())
  done = network.for_execution("masked")
  assert done.for_execution("masked").params["blocks"] == done.params["blocks"]


def test_float32_stays_as_it_is():
  network = tiny.network(ARCH)
  assert network.for_execution("masked") is network


@pytest.mark.parametrize("execution", tiny.few(("dense", "masked", "packed", "flat"), "packed"))
def test_the_results_are_those_of_rounding_in_every_pass(network, execution):
  one = network.dense if execution == "dense" else network
  in_program = jax.jit(lambda network, images: network.apply(images, execution).logits)
  np.testing.assert_array_equal(one(IMAGES, execution).logits, in_program(one, IMAGES))


def test_a_call_inside_jit_leaves_the_network_usable(network):
  inside = tiny.network(ARCH, dtype="bfloat16")
  logits = jax.jit(lambda images: inside(images, "masked").logits)(IMAGES)
  np.testing.assert_array_equal(inside(IMAGES, "masked").logits, logits)
  assert not any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves(inside._rounded))


def test_shapes_are_rounded_too(network):
  shapes = jax.tree.map(lambda a: (a.shape, a.dtype), vit.rounded(vit.specs(ARCH), "bfloat16"))
  expected = jax.tree.map(lambda a: (a.shape, a.dtype), network.for_execution("masked").params)
  assert shapes == expected


def test_rounded_parameters_are_not_saved(network, tmp_path):
  path = tmp_path / "rounded.safetensors"
  with pytest.raises(InputError, match="rounded to bfloat16"):
    network.for_execution("masked").save(path)
  assert not path.exists()
  network.save(path)
