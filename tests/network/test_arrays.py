"""Images as users hand them in: what runs gives the same as uint8 pixels, all else one line."""

import io

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tiny
from PIL import Image

from asvit_jax.core import progress
from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.export.artifacts import load_artifact
from asvit_jax.vit import images as image_arrays
from asvit_jax.vit import scaling

ARCH = tiny.TRAINED
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
FLOATS = tiny.normalize(PIXELS)
WIDE = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)  # to -1 to 1


@pytest.fixture(scope="module")
def network():
  return tiny.network(ARCH).with_thresholds([0.02, 0.03, 0.04])


def thresholds(network, images):
  """Those that a calibration would begin with."""
  return network.calibrator(images).trial(0.7).thresholds


@pytest.fixture(scope="module")
def artifact(network, tmp_path_factory):
  path = tmp_path_factory.mktemp("artifact") / "a.zip"
  network.dense.export(path, "stablehlo")
  return load_artifact(path)


def smooth(count=2):
  """(b, 16, 16, 3) floats of 0 to 255, between whole numbers, as resizing makes them."""
  return RNG.random((count, 16, 16, 3)).astype(np.float32) * 255


def read_only(array):
  array = array.copy()
  array.flags.writeable = False
  return array


def read_png(array):
  """As PIL opens it: lazily, from a file."""
  file = io.BytesIO()
  Image.fromarray(array).save(file, "PNG")
  return Image.open(file)


SAME = {
  "uint8": lambda x, f: x,
  "float32": lambda x, f: f,
  "float64": lambda x, f: f.astype(np.float64),
  "big-endian float32": lambda x, f: f.astype(">f4"),
  "big-endian float64": lambda x, f: f.astype(">f8"),
  "float16": lambda x, f: f.astype(np.float16),
  "bfloat16": lambda x, f: f.astype(ml_dtypes.bfloat16),
  "of JAX": lambda x, f: jnp.asarray(x),
  "float32 of JAX": lambda x, f: jnp.asarray(f),
  "Fortran order": lambda x, f: np.asfortranarray(x),
  "strided": lambda x, f: np.repeat(x, 2, axis=2)[:, :, ::2],
  "read-only": lambda x, f: read_only(x),
  "memoryview": lambda x, f: memoryview(x),
  "no masked value": lambda x, f: np.ma.masked_array(x, np.zeros(x.shape, bool)),
  "list of arrays": lambda x, f: list(x),
  "list of floats": lambda x, f: f.tolist(),
  "tuple of JAX": lambda x, f: tuple(jnp.asarray(x)),
  "list of PIL": lambda x, f: [Image.fromarray(image) for image in x],
  "list of files of PIL": lambda x, f: [read_png(image) for image in x],
  "PIL with opacity": lambda x, f: [Image.fromarray(image).convert("RGBA") for image in x],
}


@pytest.mark.parametrize("kind", SAME)
def test_all_that_are_images_give_what_their_pixels_give(network, kind):
  given = SAME[kind](PIXELS, FLOATS)
  coarse = {"float16": 2e-2, "bfloat16": 2e-1}.get(kind, 2e-5)
  expected = network(PIXELS, "dense").logits
  for _ in range(2):  # a big-endian array was NaN the second time
    np.testing.assert_allclose(network(given, "dense").logits, expected, atol=coarse)
  if coarse < 1e-3:
    np.testing.assert_allclose(thresholds(network, given), thresholds(network, PIXELS), rtol=1e-4)


REFUSED = {
  "uint16": (PIXELS.astype(np.uint16), r"uint16: expected .*// 257\)\.astype\(np\.uint8\)"),
  "big-endian uint16": (PIXELS.astype(">u2"), "uint16"),
  "int8": (PIXELS.astype(np.int8), "int8: expected .*uint8 pixels or normalised floats"),
  "int64": (PIXELS.astype(np.int64), r"int64.*images\.astype\(np\.uint8\)"),
  "int32 of JAX": (jnp.asarray(PIXELS, jnp.int32), r"int32.*images\.astype\(np\.uint8\)"),
  "bool": (PIXELS > 128, "bool.*a mask"),
  "complex": (FLOATS.astype(np.complex64), "complex64"),
  "longdouble": (FLOATS.astype(np.longdouble), "float"),
  "float8": (FLOATS.astype(ml_dtypes.float8_e4m3fn), "float8_e4m3fn"),
  "objects": (PIXELS.astype(object), "object"),
  "text": (np.array(["a"]), "<U1"),
  "structured": (np.zeros((1, 16, 16, 3), [("r", "u1")]), "expected"),
  "nested list of integers": (PIXELS.tolist(), "int64"),
  "0 to 255": (PIXELS.astype(np.float32), "from 0 to 255, which are pixels of 0 to 255"),
  "0 to 255 of JAX": (jnp.asarray(PIXELS, jnp.float32), "which are pixels of 0 to 255"),
  "0 to 255, bfloat16": (PIXELS.astype(ml_dtypes.bfloat16), "far outside"),
  "0 to 255, resized": (smooth(), "far outside the range of normalised pixels"),
  "0 to 255, dark": (smooth() / 60, "none of them below zero, where dark pixels are"),
  "0 to 1": (PIXELS / 255, "from 0 to 1, which are pixels scaled to 0 to 1"),
  "0 to 1, float16": ((PIXELS / 255).astype(np.float16), "scaled to 0 to 1"),
  "0 to 1 of JAX": (jnp.asarray(PIXELS, jnp.float32) / 255, "scaled to 0 to 1"),
  "0 to 1, resized": (smooth() / 255, "none of them below zero"),
  "-1 to 1": (PIXELS / 127.5 - 1, "scaled to -1 to 1"),
  "NaN": (np.where(np.arange(3) == 1, np.nan, FLOATS), "not finite"),
  "infinite": (np.where(np.arange(3) == 1, -np.inf, FLOATS), "not finite"),
  "NaN of JAX": (jnp.asarray(FLOATS).at[0, 0, 0, 0].set(jnp.nan), "not finite"),
  "1e30": (FLOATS * 1e30, "far outside"),
  "channels first": (
    PIXELS.transpose(0, 3, 1, 2),
    r"these are \(b, 3, 16, 16\): images\.transpose\(0, 2, 3, 1\)",
  ),
  "one image": (PIXELS[0], r"one image: .* images\[None\]"),
  "one image, channels first": (PIXELS[0].transpose(2, 0, 1), r"transpose\(1, 2, 0\)\[None\]"),
  "grey": (PIXELS[..., 0], r"these are grey: np\.repeat\(images\[\.\.\., None\], 3, axis=-1\)"),
  "grey with an axis": (PIXELS[..., :1], r"these are grey: np\.repeat\(images, 3, axis=-1\)"),
  "one grey image": (PIXELS[0, ..., 0], "one grey image"),
  "opacity": (np.concatenate([PIXELS, PIXELS[..., :1]], axis=-1), r"images\[\.\.\., :3\]"),
  "video": (PIXELS[None], r"reshape\(-1, 16, 16, 3\)"),
  "another size": (PIXELS[:, :8], "another size: `network.read"),
  "no axis": (np.uint8(3), r"images of shape \(\): expected \(b, 16, 16, 3\)"),
  "none": (PIXELS[:0], "no images: expected at least one"),
  "no floats": (FLOATS[:0], "no images: expected at least one"),
  "an empty list": ([], "no images: expected at least one"),
  "ragged": ([PIXELS[0], PIXELS[1][:8]], "a list that makes no array"),
  "paths": (["a.png", "b.png"], r"a list of paths: `network\.read"),
  "a path": ("a.png", r"of type str \(`network\.read"),
  "bytes": (PIXELS.tobytes(), "of type bytes"),
  "None": (None, "images are None"),
  "a number": (3, "of type int"),
  "a set": ({1, 2}, "of type set"),
  "a masked value": (np.ma.masked_array(PIXELS, PIXELS > 128), r"images\.filled\(0\)"),
  "a PIL image": (Image.fromarray(PIXELS[0]), r"a list of them: \[image\]"),
  "PIL of another size": ([Image.new("RGB", (20, 16))], "16 pixels high and 20 wide"),
  "deep PIL": ([Image.new("I;16", (16, 16))], "mode I;16"),
  "PIL and arrays": ([Image.fromarray(PIXELS[0]), PIXELS[1]], "expected one kind"),
  "a key": (jax.random.key(0), "key<fry>"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_images_is_refused_in_one_line_everywhere(network, artifact, kind):
  given, said = REFUSED[kind]
  calls = [
    lambda: network(given),
    lambda: network(given, "masked"),
    lambda: network.dense(given),
    lambda: network.dense.apply(given),
    lambda: network.calibrate(given, 0.7),
    lambda: network.search(given, 0.7, trials=0),
    lambda: network.calibrator(given),
  ]
  for call in calls:
    with pytest.raises(InputError, match=said) as caught:
      call()
    assert "\n" not in str(caught.value)
  with pytest.raises(InputError):
    artifact(given)


def test_an_artifact_takes_pixels_in_any_container(network, artifact):
  expected = network(PIXELS, "dense").logits
  for given in (list(PIXELS), np.asfortranarray(PIXELS), [Image.fromarray(x) for x in PIXELS]):
    np.testing.assert_allclose(artifact(given)[0], expected, atol=2e-5)
  with pytest.raises(InputError, match=r"float32: expected .* uint8; pixels are not normalised"):
    artifact(FLOATS)


class Unwilling:
  """An array of a library that NumPy cannot take, as PyTorch's of a GPU."""

  shape, dtype = PIXELS.shape, "uint8"

  def __array__(self, *args, **kwargs):
    raise TypeError("can't convert cuda:0 device type tensor to numpy.\nUse Tensor.cpu()")


def test_arrays_that_their_library_does_not_give_are_refused(network):
  said = r"NumPy cannot take .*detach\(\)\.cpu\(\)\.numpy\(\)"
  for call in (network, lambda given: network.calibrate(given, 0.7)):
    with pytest.raises(InputError, match=said) as caught:
      call(Unwilling())
    assert "\n" not in str(caught.value)
  with pytest.raises(InputError, match="a list that makes no array"):
    network([Unwilling()])


def test_generators_are_batches_for_calibration_and_nothing_for_a_call(network):
  with pytest.raises(InputError, match=r"of type generator \(np\.stack\(list\(images\)\)"):
    network(image for image in PIXELS)
  with pytest.raises(InputError, match=r"expected batches, .*np\.stack\(list\(images\)\)"):
    network.calibrate((image for image in PIXELS), 0.7)
  with pytest.raises(InputError, match="no images: expected at least one"):
    network.calibrate(iter([]), 0.7)


@pytest.mark.parametrize(
  "batches",
  [
    {"image": PIXELS},
    [{"image": PIXELS}],
    ({"image": part} for part in (PIXELS[:3], PIXELS[3:])),
    (part for part in (FLOATS[:3], PIXELS[3:])),
    [PIXELS[:3], PIXELS[3:]],
    [{"image": FLOATS, "valid": [True] * 6}],
    [{"image": np.concatenate([PIXELS, PIXELS[:2]]), "valid": np.arange(8) < 6}],
    [{"image": np.concatenate([PIXELS, PIXELS[:2]]), "valid": np.int64(np.arange(8) < 6)}],
  ],
  ids=["one", "list", "generator", "arrays", "list of arrays", "floats", "padded", "as integers"],
)
def test_calibration_takes_batches_of_either_kind(network, batches):
  np.testing.assert_allclose(thresholds(network, batches), thresholds(network, PIXELS), rtol=1e-4)


@pytest.mark.parametrize(
  ("batch", "said"),
  [
    ({"images": PIXELS}, "a batch of images has no 'image': its keys are 'images'"),
    ({"image": PIXELS, "valid": np.ones(3, bool)}, r"'valid' of a batch is of shape \(3,\)"),
    ({"image": PIXELS, "valid": np.arange(6)}, "expected a bool for each of its 6 images"),
    ({"image": PIXELS, "valid": np.zeros(6, bool)}, "no images: expected at least one"),
    ({"image": PIXELS.astype(np.float32)}, "pixels of 0 to 255"),
    ({"image": PIXELS.transpose(0, 3, 1, 2)}, "transpose"),
    (3, "a batch of images is of type int"),
  ],
)
def test_batches_that_are_none_are_refused(network, batch, said):
  for calibrate in (network.calibrate, lambda images, budget: network.search(images, budget, 0)):
    with pytest.raises(InputError, match=said):
      calibrate(iter([batch]), 0.7)


def test_normalised_floats_meet_the_budget_that_pixels_meet(network):
  many = RNG.integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
  calibrated = network.dense.calibrate(tiny.normalize(many), 0.6)
  share = network.gmacs(calibrated(many, "masked").kept).mean() / network.dense_gmacs
  assert abs(share - 0.6) < 0.01


def test_inside_jit_types_and_shapes_are_checked_and_values_are_not(network):
  run = jax.jit(lambda network, images: network.apply(images, "dense").logits)
  for kind in ("int8", "bool", "channels first", "one image", "none"):
    given, said = REFUSED[kind]
    with pytest.raises(InputError, match=said):
      run(network, given)
  assert np.isnan(run(network, np.full_like(FLOATS, np.nan))).all()
  expected = network(PIXELS, "dense").logits
  np.testing.assert_allclose(run(network, FLOATS), expected, atol=2e-5)
  # A constant is concrete, and looked at, also while others are traced.
  constant = jnp.asarray(PIXELS, jnp.float32)
  with pytest.raises(InputError, match="pixels of 0 to 255"):
    jax.jit(lambda x: network.apply(constant, "dense").logits + x)(1.0)


ALLOWED = {
  "photographs": (tiny.normalize(PIXELS), None),
  "noise": (tiny.images(ARCH, 4), None),
  "zeros": (np.zeros((2, 16, 16, 3), np.float32), None),
  "ones": (np.ones((2, 16, 16, 3), np.float32), None),
  "white and black": (np.where(PIXELS > 128, 1.0, -1.0), None),
  "bright, of mean 0.5": (WIDE.normalize(PIXELS // 2 + 128), WIDE),
  "of 0 to 1 as the network wants them": (PIXELS / 255, Preprocessing(mean=(0,) * 3, std=(1,) * 3)),
  "of 0 to 255 as the network wants them": (
    PIXELS.astype(np.float32),
    Preprocessing(mean=(0,) * 3, std=(1 / 255,) * 3),
  ),
}


@pytest.mark.parametrize("kind", ALLOWED)
def test_floats_that_a_network_may_see_are_taken(kind):
  images, preprocessing = ALLOWED[kind]
  preprocessing = preprocessing or Preprocessing()
  for given in (images, jnp.asarray(images)):
    assert image_arrays.checked(given, ARCH, preprocessing) is given


def test_what_is_normalised_for_another_network_is_refused():
  for theirs, ours, said in (
    (WIDE, Preprocessing(), "pixels scaled to -1 to 1"),
    (Preprocessing(), WIDE, "pixels scaled by ImageNet's mean and std"),
  ):
    with pytest.raises(InputError, match=said):
      image_arrays.checked(theirs.normalize(PIXELS), ARCH, ours)


def test_bright_floats_are_implausible_and_said_once(capsys, monkeypatch):
  monkeypatch.setattr(progress, "_said", set())
  bright = 0.3 + FLOATS.clip(0, 1.5)
  for _ in range(2):
    assert image_arrays.checked(bright, ARCH, Preprocessing()) is bright
  said = capsys.readouterr().err
  assert said.count("WARNING") == 1
  assert "none of them below zero, where dark pixels are" in said


def resized(count=4, side=16):
  """(count, side, side, 3) floats of 0 to 1, on no grid, as photographs that were resized."""
  image = jax.image.resize(RNG.random((count, 5, 5, 3)), (count, side, side, 3), "linear")
  low, high = image.min(), image.max()
  return np.asarray((image - low) / (high - low), np.float32)


def by_imagenet(images):
  """Floats of 0 to 1 as networks of ImageNet's mean and std see them."""
  own = Preprocessing()
  return ((images - np.float32(own.mean)) / np.float32(own.std)).astype(np.float32)


def warnings_of(capsys, monkeypatch, images, preprocessing):
  """What is said of images, at two calls."""
  monkeypatch.setattr(progress, "_said", set())
  for _ in range(2):
    image_arrays.checked(images, ARCH, preprocessing)
  return capsys.readouterr().err.splitlines()


OF_ANOTHER = {
  "-1 to 1": (2 * resized() - 1, Preprocessing(), "as if they were scaled to -1 to 1"),
  "-1 to 1, bfloat16": (
    (PIXELS / 127.5 - 1).astype(ml_dtypes.bfloat16),
    Preprocessing(),
    "as if they were scaled to -1 to 1",
  ),
  "-1 to 1 of JAX": (jnp.asarray(2 * resized() - 1), Preprocessing(), "as if they were scaled"),
  "ImageNet's": (by_imagenet(resized()), WIDE, "of them far beyond black and white"),
  "ImageNet's of one": (by_imagenet(resized(1)), WIDE, "of them far beyond black and white"),
  "ImageNet's, bfloat16": (
    FLOATS.astype(ml_dtypes.bfloat16),
    WIDE,
    "of them far beyond black and white",
  ),
  "ImageNet's for 0 to 1": (
    by_imagenet(resized()),
    Preprocessing(mean=(0,) * 3, std=(1,) * 3),
    "of them far beyond black and white",
  ),
  "0 to 1": (resized(), WIDE, "none of them below zero"),
}


@pytest.mark.parametrize("kind", OF_ANOTHER)
def test_floats_of_another_scale_that_no_grid_gives_away_are_warned_of(capsys, monkeypatch, kind):
  images, preprocessing, said = OF_ANOTHER[kind]
  lines = warnings_of(capsys, monkeypatch, images, preprocessing)
  assert len(lines) == 1, lines
  assert lines[0].startswith("WARNING: images are floats from")
  assert said in lines[0]


def erased(images):
  """With noise in a third of each image, as random erasing leaves it."""
  images = images.copy()
  images[:, 2:12, 2:10] = RNG.standard_normal(images[:, 2:12, 2:10].shape)
  return images


LEGITIMATE = {
  "photographs": (by_imagenet(resized()), Preprocessing()),
  "of a wide network": (2 * resized() - 1, WIDE),
  "overshooting": (1.25 * (2 * resized() - 1), WIDE),
  "mixed up": (by_imagenet(0.3 * resized() + 0.7 * resized()), Preprocessing()),
  "erased": (erased(by_imagenet(resized())), Preprocessing()),
  "erased, of a wide network": (erased(2 * resized() - 1), WIDE),
  "dark": (by_imagenet(0.2 * resized()), Preprocessing()),
  "bright": (by_imagenet(0.35 + 0.65 * resized()), Preprocessing()),
  "noise": (tiny.images(ARCH, 64), Preprocessing()),
  "one": (2 * resized(1) - 1, Preprocessing()),
}


@pytest.mark.parametrize("kind", LEGITIMATE)
def test_of_floats_that_a_network_may_see_nothing_is_said(capsys, monkeypatch, kind):
  images, preprocessing = LEGITIMATE[kind]
  assert warnings_of(capsys, monkeypatch, images.astype(np.float32), preprocessing) == []


@pytest.mark.parametrize("kind", ["photographs", "NaN", "bfloat16", "inside of jit"])
def test_a_device_finds_what_the_host_finds(kind):
  images = {"NaN": REFUSED["NaN"][0].astype(np.float32), "bfloat16": jnp.bfloat16(FLOATS)}
  images = jnp.asarray(images.get(kind, FLOATS))

  def both(x):
    return [scaling.looked_at(images, on_device) for on_device in (True, False)], x

  with jax.debug_nans(True):
    if kind == "inside of jit":
      found = []
      jax.jit(lambda x: found.extend(both(x)[0]) or x)(1.0)
    else:
      found, _ = both(0)
  (low, high, finite, sample), expected = found
  assert finite == expected[2] == (kind != "NaN")
  if finite:
    assert (low, high) == expected[:2]
    np.testing.assert_array_equal(sample, expected[3])


def test_pixels_on_a_device_are_not_fetched(network):
  images = jnp.asarray(PIXELS)
  network(images, "dense")
  with jax.transfer_guard("disallow"):
    assert image_arrays.checked(images, ARCH, Preprocessing()) is images


@pytest.mark.parametrize("sizes", [8, "12", None, [0], [-1], [1.5], ["1"], [True]])
def test_numbers_of_images_to_warm_up_for_are_whole(network, artifact, sizes):
  with pytest.raises(InputError, match="batch sizes"):
    network.warm_up(sizes)
  if sizes is not None:
    with pytest.raises(InputError, match="batch sizes"):
      artifact.warm_up(sizes)
