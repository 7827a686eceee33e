"""`Network.stream`: any number of images, pool by pool, each as if it ran alone."""

import itertools

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

from asvit_jax import vit
from asvit_jax.core.errors import InputError
from asvit_jax.network import Network, streaming

ARCH = tiny.TRAINED
PIXELS = np.random.default_rng(3).integers(0, 256, (11, 16, 16, 3), dtype=np.uint8)

pytestmark = pytest.mark.usefixtures("short_ladders")


@pytest.fixture(scope="module")
def network():
  images = tiny.normalize(PIXELS)
  params = tiny.with_thresholds(ARCH, tiny.params(ARCH), images, (0.7, 0.5, 0.3))
  return tiny.network(ARCH).with_params(params).with_counts((11, 8, 5))


@pytest.fixture(scope="module")
def alone(network):
  return [network(PIXELS[i : i + 1], "masked") for i in range(len(PIXELS))]


def assert_each_as_alone(found, alone):
  found = list(found)
  logits, kept = (np.concatenate([getattr(o, k) for o in found]) for k in ("logits", "kept"))
  np.testing.assert_array_equal(kept, np.concatenate([o.kept for o in alone]))
  np.testing.assert_allclose(logits, np.concatenate([o.logits for o in alone]), atol=2e-5)
  return [len(o.logits) for o in found]


@pytest.mark.parametrize("execution", tiny.few(["masked", "packed", "flat"], "masked", "packed"))
def test_each_image_gets_what_it_gets_alone(network, alone, execution):
  assert len(np.unique(np.concatenate([o.kept for o in alone]), axis=0)) > 3
  assert assert_each_as_alone(network.stream(PIXELS, execution, pool=4), alone) == [4, 4, 3]


def test_fixed_and_dense_run_in_pools_too(network):
  for execution in ("fixed", "dense"):
    found = list(network.stream(PIXELS, execution, pool=8))
    expected = network(PIXELS, execution)
    np.testing.assert_allclose(
      np.concatenate([o.logits for o in found]), expected.logits, atol=2e-5
    )
    assert all(o.tokens is None for o in found)


def test_tokens_come_on_request(network):
  expected = network(PIXELS, "masked")
  found = list(network.stream(PIXELS, "masked", pool=8, tokens=True))
  np.testing.assert_allclose(np.concatenate([o.tokens for o in found]), expected.tokens, atol=2e-5)
  np.testing.assert_array_equal(np.concatenate([o.sources for o in found]), expected.sources)


def batches():
  yield PIXELS[:3]
  yield {"image": np.concatenate([PIXELS[3:9], PIXELS[:1]]), "valid": np.arange(7) < 6}
  yield PIXELS[9]
  yield Image.fromarray(PIXELS[10])


GIVEN = {
  "a JAX array": lambda: jax.numpy.asarray(PIXELS),
  "a list of images": lambda: list(PIXELS),
  "a generator of images": lambda: (image for image in PIXELS),
  "PIL images": lambda: [Image.fromarray(image) for image in PIXELS],
  "batches and images": batches,
  "a list of batches": lambda: [PIXELS[:2], PIXELS[2:]],
  "a dictionary": lambda: {"image": PIXELS},
  "normalised": lambda: (np.asarray(tiny.normalize(image)) for image in PIXELS),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_images_come_in_any_form(network, alone, kind):
  assert assert_each_as_alone(network.stream(GIVEN[kind](), "masked", pool=4), alone) == [4, 4, 3]


def test_files_are_read_in_order(network, alone, tmp_path):
  paths = [tmp_path / f"{i:02}.png" for i in range(len(PIXELS))]
  for path, image in zip(paths, PIXELS, strict=True):
    Image.fromarray(image).save(path)
  expected = [network(network.read([path]), "masked") for path in paths]
  for given in (tmp_path, paths, (str(path) for path in paths), np.array(list(map(str, paths)))):
    assert assert_each_as_alone(network.stream(given, "masked", pool=4), expected) == [4, 4, 3]


def test_an_endless_iterable_is_read_as_far_as_needed(network, alone):
  read = []

  def endless():
    for i in itertools.count():
      read.append(i)
      yield PIXELS[i % len(PIXELS)]

  results = network.stream(endless(), "masked", pool=4)
  assert read == []
  first, second = next(results), next(results)
  assert_each_as_alone([first, second], alone[:8])
  assert len(read) <= 13  # the one in flight is the third
  results.close()


def test_a_pool_starts_before_the_last_one_is_waited_for(network, monkeypatch):
  events, fetch = [], jax.device_get

  def run(images):
    events.append("run")
    return network(images, "masked")

  monkeypatch.setattr(
    streaming.jax, "device_get", lambda tree: events.append("wait") or fetch(tree)
  )
  pools = iter([PIXELS[:4], PIXELS[4:8], PIXELS[8:]])
  found = list(streaming._results(run, (pool for pool in pools), 4))
  assert events == ["run", "run", "wait", "run", "wait", "wait"]
  assert [len(o.logits) for o in found] == [4, 4, 3]


def test_all_pools_are_compiled_once(network):
  traces, whole = [], streaming._compiled._cache_size()
  for count in (5, 6, 8, 11):  # 8, and from 9 on 16
    traces.append(sum(len(o.logits) for o in network.stream(PIXELS[:count], "masked")))
  assert traces == [5, 6, 8, 11]
  assert streaming._compiled._cache_size() - whole == 2


def test_what_an_item_spoils_comes_after_the_results_before_it(network, alone):
  wrong = np.zeros((8, 8, 3), np.uint8)
  results = network.stream([*PIXELS[:9], wrong], "masked", pool=4)
  assert_each_as_alone([next(results), next(results)], alone[:8])
  with pytest.raises(InputError, match=r"item 9 of the images to stream: .*\(1, 8, 8, 3\)"):
    next(results)


BAD = {
  "None": (lambda: (None, {}), "images to stream are None: expected an array, files"),
  "a number": (lambda: (3, {}), "images to stream are of type int: expected"),
  "one PIL image": (lambda: (Image.fromarray(PIXELS[0]), {}), "Image.Image: expected an array"),
  "another size": (lambda: (PIXELS[:, :8], {}), "expected .b, 16, 16, 3"),
  "no such place": (lambda: ("nowhere", {}), "nowhere"),
  "a pool of none": (lambda: (PIXELS, {"pool": 0}), "pool 0: expected the number of images"),
  "half a pool": (lambda: (PIXELS, {"pool": 2.5}), "pool 2.5: expected"),
  "an execution": (lambda: (PIXELS, {"execution": "fast"}), "fast"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_arguments_get_one_line_at_the_call(network, kind):
  (images, options), said = BAD[kind][0](), BAD[kind][1]
  with pytest.raises(InputError, match=said) as error:
    network.stream(images, **options)
  assert "\n" not in str(error.value)


def test_bad_items_get_one_line(network, tmp_path):
  (tmp_path / "a.png").write_text("no image")
  normalised = np.asarray(tiny.normalize(PIXELS[0]))
  for images, said in (
    ([], "no images: expected at least one"),
    (iter(()), "no images: expected at least one"),
    ([PIXELS[0], normalised], "item 1 .* is float32, and those before are uint8: expected one"),
    ([PIXELS[0], "gone.png"], r"gone\.png"),
    ([PIXELS[0], {"label": 3}], "item 1 .* has no 'image'"),
    (tmp_path, r"a\.png"),
  ):
    with pytest.raises(InputError, match=said) as error:
      list(network.stream(images, "masked"))
    assert "\n" not in str(error.value)


def test_too_large_a_pool_says_so(network, monkeypatch):
  def full(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

  monkeypatch.setattr(streaming, "_compiled", full)
  with pytest.raises(InputError, match="pool 4: this machine has too little memory"):
    list(network.stream(PIXELS, "masked", pool=4))


def test_the_default_suits_the_device(monkeypatch):
  def of(arch):
    return streaming.pool_of(Network.without_params(arch))

  large = vit.Architecture(width=1024, heads=16, depth=24, image_size=384, patch_size=16, classes=9)
  t, s = vit.VARIANTS["deit_t"], vit.VARIANTS["deit_s"]
  monkeypatch.setattr(streaming, "platform_of", lambda network: "cpu")
  assert (of(t), of(s), of(large)) == (256, 128, 32)
  monkeypatch.setattr(streaming, "platform_of", lambda network: "tpu")
  assert (of(t), of(s), of(large)) == (1024, 1024, 64)


def test_the_device_is_that_of_the_parameters(network):
  assert streaming.platform_of(network) == "cpu"
