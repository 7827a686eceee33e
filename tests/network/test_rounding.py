"""`for_execution` rounds the matrices of blocks once; what is computed stays the same."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.core import leaves
from asvit_jax.core.errors import InputError
from asvit_jax.vit import rounding

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
  twice = dict(leaves.named(network.for_execution("masked").for_execution("masked").params))
  assert all(twice[name] is leaf for name, leaf in found.items())


def test_networks_with_other_thresholds_share_the_rounded_matrices_while_one_lives(network):
  network = network.with_params(jax.tree.map(jnp.copy, network.params))
  other = network.with_thresholds(2 * network.params["thresholds"])
  before = len(rounding._rounded)
  one, two = (n.for_execution("masked").params["blocks"][0]["attn"] for n in (network, other))
  assert one["qkv"]["kernel"] is two["qkv"]["kernel"]
  assert len(rounding._rounded) == before + 4 * ARCH.depth
  del network, other
  gc.collect()
  assert len(rounding._rounded) == before


def test_float32_and_arrays_that_may_change_stay_as_they_are(network):
  of_float32 = tiny.network(ARCH)
  assert of_float32.for_execution("masked") is of_float32
  of_numpy = network.with_params(jax.tree.map(np.array, network.params))
  logits = of_numpy(IMAGES, "masked").logits
  np.testing.assert_array_equal(logits, network(IMAGES, "masked").logits)
  of_numpy.params["blocks"][0]["mlp"]["fc1"]["kernel"][:] = 0.0
  assert (of_numpy(IMAGES, "masked").logits != logits).any()


@pytest.mark.parametrize("execution", tiny.few(("dense", "masked", "packed", "flat"), "packed"))
def test_the_results_are_those_of_rounding_in_every_pass(network, execution):
  one = network.dense if execution == "dense" else network
  in_program = jax.jit(lambda network, images: network.apply(images, execution).logits)
  np.testing.assert_array_equal(one(IMAGES, execution).logits, in_program(one, IMAGES))


@pytest.mark.parametrize("params", [None, {}, {"blocks": 3}, {"blocks": {0: {"attn": None}}}])
def test_parameters_of_no_network_are_left_to_the_checks(params):
  assert vit.rounded(params, "bfloat16") is params


def test_a_call_inside_jit_leaves_the_network_usable(network):
  inside = tiny.network(ARCH, dtype="bfloat16")
  logits = jax.jit(lambda images: inside(images, "masked").logits)(IMAGES)
  np.testing.assert_array_equal(inside(IMAGES, "masked").logits, logits)


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
