"""Networks in the hands of JAX and Python: hashed, compared, traced, copied, shared by threads."""

import concurrent.futures
import copy
import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.network import Network

ARCH = tiny.TRAINED
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)


def make(**fields):
  return tiny.network(ARCH, **fields).with_thresholds([0.05, 0.06, 0.07])


@pytest.fixture(scope="module")
def network():
  return make(classes=("ant", "bee", "cat"))


@pytest.fixture(scope="module")
def expected(network):
  return np.asarray(network(PIXELS, "masked").logits)


def moved(network):
  return network.with_params(jax.tree.map(lambda x: x + 0.25, network.params))


def test_networks_are_compared_by_their_values_and_never_raise(network):
  same = network.with_params(jax.tree.map(lambda x: x + 0, network.params))
  assert network == network
  assert network == same
  assert hash(network) == hash(same)
  assert len({network, same, copy.copy(network)}) == 1
  assert network != moved(network)
  assert network != network.dense
  assert network != dataclasses.replace(network, variant="other")
  assert network != network.with_params(None)
  assert network != network.with_params(jax.eval_shape(lambda: network.params))
  assert network != "a network"
  assert network is not None
  damaged = network.with_params(network.params | {"cls_token": jnp.full((1, 1, 12), jnp.nan)})
  assert damaged == copy.deepcopy(damaged)
  assert damaged != network

  @jax.jit
  def traced(params):
    return (network.with_params(params) == network) + 0.0

  assert traced(network.params) == 0


def test_jit_takes_a_network_as_a_function_and_does_not_mix_networks_up(network):
  dense, other = network.dense, moved(network).dense
  ours, theirs = (np.asarray(jax.jit(n)(PIXELS).logits) for n in (dense, other))
  np.testing.assert_allclose(ours, dense(PIXELS).logits, atol=2e-5)
  np.testing.assert_allclose(theirs, other(PIXELS).logits, atol=2e-5)
  assert np.abs(ours - theirs).max() > 1e-3
  run = jax.jit(lambda network, images: network(images).logits, static_argnums=0)
  np.testing.assert_allclose(run(dense, PIXELS), ours, atol=2e-5)


@pytest.mark.parametrize(
  "preprocessing",
  [
    {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]},
    {"mean": np.array([0.5, 0.4, 0.3]), "std": np.full(3, 0.2)},
    {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)},
  ],
  ids=["lists", "arrays", "tuples"],
)
@pytest.mark.parametrize("kind", [list, np.array, tuple])
def test_lists_and_arrays_do_where_tuples_do(preprocessing, kind):
  names = kind(["ant", "bee", "cat"])
  network = make(classes=names, preprocessing=Preprocessing(**preprocessing))
  reference = make(
    classes=("ant", "bee", "cat"), preprocessing=Preprocessing(0.875, (0.5, 0.4, 0.3), (0.2,) * 3)
  )
  assert network == reference
  assert hash(network) == hash(reference)
  assert all(type(name) is str for name in network.classes)
  np.testing.assert_array_equal(network(PIXELS, "dense").logits, reference(PIXELS, "dense").logits)


@pytest.mark.parametrize("kind", [list, np.array, tuple])
def test_an_architecture_takes_its_stages_as_a_list(kind):
  arch = dataclasses.replace(ARCH, prune_before=kind([2, 3]))
  assert hash(arch) == hash(dataclasses.replace(ARCH, prune_before=(2, 3)))
  network = Network(arch, tiny.params(ARCH.dense)).with_thresholds([0.05, 0.06])
  assert network(PIXELS, "masked").kept.shape == (4, 2)


def test_copies_and_pickles_are_the_same_network(network, expected):
  for other in (copy.copy(network), copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
    assert other == network
    np.testing.assert_array_equal(other(PIXELS, "masked").logits, expected)


def test_trees_of_networks_are_networks(network, expected):
  same = jax.tree.map(lambda x: x, network)
  on_device = jax.device_put(network, jax.devices()[0])
  assert isinstance(on_device, Network)
  for other in (same, on_device):
    assert other == network
    np.testing.assert_array_equal(other(PIXELS, "masked").logits, expected)


def test_vmap_over_images_and_over_networks(network, expected):
  each = jax.vmap(lambda image: network.apply(image[None], "masked").logits[0])
  np.testing.assert_allclose(jax.jit(each)(PIXELS), expected, atol=2e-5)
  stacked = jax.tree.map(lambda *x: jnp.stack(x), network, moved(network))
  both = jax.jit(jax.vmap(lambda network: network.apply(PIXELS, "masked").logits))(stacked)
  np.testing.assert_allclose(both[0], expected, atol=2e-5)
  np.testing.assert_allclose(both[1], moved(network)(PIXELS, "masked").logits, atol=1e-4)


def test_gradients_reach_the_parameters_and_the_images(network):
  floats = network.preprocessing.normalize(PIXELS)
  grads = jax.grad(lambda network, x: network.apply(x, "masked").logits.sum(), argnums=(0, 1))
  of_network, of_images = jax.jit(grads)(network, floats)
  assert np.abs(of_network.params["head"]["kernel"]).max() > 0
  assert np.isfinite(of_images).all()
  assert of_images.shape == floats.shape


def test_threads_share_a_network(network, expected):
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for logits in pool.map(lambda _: network(PIXELS, "masked").logits, range(32)):
      np.testing.assert_array_equal(logits, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
  "mode",
  [jax.debug_nans, jax.enable_x64, jax.disable_jit, jax.check_tracer_leaks],
  ids=["debug_nans", "enable_x64", "disable_jit", "check_tracer_leaks"],
)
def test_it_runs_in_every_mode_that_helps_to_debug(network, mode):
  floats = jnp.asarray(network.preprocessing.normalize(PIXELS))
  execution = "dense" if mode is jax.disable_jit else "masked"
  expected = network(PIXELS, execution).logits
  with mode(True):
    for images in (PIXELS, floats):
      np.testing.assert_allclose(network(images, execution).logits, expected, atol=5e-5)
    with pytest.raises(InputError, match="not finite"):
      network(np.full_like(floats, np.nan), execution)
