"""examples/segment.py: what it draws, counts and compares, on a small network."""

import importlib.util
import json

import numpy as np
import pytest
import tiny
from PIL import Image

from asvit_jax.core.errors import InputError

ARCH = tiny.arch(width=12, depth=3, prune_before=(1, 2), image_size=48, patch_size=6)


@pytest.fixture(scope="module")
def segment(repository):
  """The module of the example."""
  place = repository / "examples" / "segment.py"
  spec = importlib.util.spec_from_file_location("segment", place)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_canvases_hold_what_their_masks_say(segment):
  pixels, masks = segment.canvases(range(40), 6, seed=0)
  again, _ = segment.canvases(range(40), 6, seed=0)
  np.testing.assert_array_equal(pixels, again)
  assert (pixels[masks > 0] >= 16).all()
  for mask in masks:
    found = set(np.unique(mask)) - {0}
    assert segment.FRAGMENT in found
    assert 1 <= len(found - {segment.FRAGMENT}) <= segment.DIGITS
  plain = segment.canvases(range(40), 6, seed=0, plain=True)[1]
  np.testing.assert_array_equal(plain, np.where(masks == segment.FRAGMENT, 0, masks))


def test_a_patch_has_the_class_of_most_of_its_pixels(segment):
  masks = np.full((1, 48, 48), segment.IGNORED, np.uint8)
  masks[0, :6, :6] = 2
  masks[0, :2, :6] = 1
  masks[0, 6, 0] = 3  # a single pixel that counts
  labels = segment.patch_labels(masks, ARCH).reshape(8, 8)
  assert (labels[0, 0], labels[1, 0]) == (2, 3)
  assert (labels.reshape(-1)[[1, 2, 9, -1]] == -1).all()


def test_the_nearest_kept_patch_stands_in(segment):
  prefix = ARCH.prefix_tokens
  positions = np.full((2, 65), -1)
  positions[0, :3] = 0, prefix + 0, prefix + 63  # opposite corners
  found = segment.nearest_sources({"positions": positions}, ARCH)
  corners = found[0].reshape(8, 8) - prefix
  assert (corners[0, 0], corners[0, 6], corners[7, 7], corners[7, 2]) == (0, 0, 63, 63)
  assert set(np.unique(corners)) == {0, 63}
  assert (found[1] == -1).all()  # nothing is kept


def test_mean_intersection_over_union(segment):
  labels, predicted = np.array([[0, 0, 1, -1]]), np.array([[0, 1, 1, 0]])
  confusion = segment.confusions(predicted, labels, 3)
  np.testing.assert_array_equal(confusion[0], [[1, 1, 0], [0, 1, 0], [0, 0, 0]])
  assert segment.miou(confusion[0]) == pytest.approx(50)  # 1/2 and 1/2; the third is nowhere
  values = segment.resampled(np.tile(confusion, (5, 1, 1)))
  np.testing.assert_allclose(values, 50)  # equal images leave nothing to chance


def test_a_linear_classifier_separates_what_is_separable(segment):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, (20, 9))
  tokens = np.eye(3, 5)[labels] + 0.05 * rng.standard_normal((20, 9, 5))
  labels[0] = -1  # does not count
  predicted = segment.fit(tokens.astype(np.float32), labels, 3)(tokens)
  np.testing.assert_array_equal(predicted[1:], labels[1:])


def write_photographs(root):
  """Images whose left half is class 0, and the right one 1; returns both directories."""
  rng = np.random.default_rng(0)
  for name in ("photos", "masks"):
    (root / name).mkdir()
  for i in range(10):
    pixels = rng.integers(0, 90, (60, 60, 3))
    pixels[:, 30:] += 150
    Image.fromarray(pixels.astype(np.uint8)).save(root / "photos" / f"{i}.png")
    mask = Image.fromarray(np.repeat([[0] * 30 + [1] * 30], 60, axis=0).astype(np.uint8))
    mask.save(root / "masks" / f"{i}.png")
  return root / "photos", root / "masks"


def test_masks_are_cropped_like_their_photographs(segment, tmp_path):
  network = tiny.network(ARCH)
  photos, masks = write_photographs(tmp_path)
  pixels, found = segment.photographs(network, photos, masks)
  assert pixels.shape == (10, 48, 48, 3)
  np.testing.assert_array_equal(found[:, :, :24], 0)
  np.testing.assert_array_equal(found[:, :, 24:], 1)
  assert (pixels[:, :, :22].max(), pixels[:, :, 26:].min()) < (140, 160)
  (masks / "3.png").unlink()
  with pytest.raises(InputError, match=r"3\.png: no such mask: expected a PNG in --masks"):
    segment.photographs(network, photos, masks)
  Image.new("RGB", (60, 60)).save(masks / "3.png")
  with pytest.raises(InputError, match=r"is RGB of \(60, 60\) pixels: expected one number per"):
    segment.photographs(network, photos, masks)


def test_mosaics_have_four_classes_and_no_gap(segment, tmp_path):
  for label in range(5):
    (tmp_path / f"c{label}").mkdir()
    Image.new("RGB", (20, 30), (50 * label + 10,) * 3).save(tmp_path / f"c{label}" / "a.png")
  pixels, masks = segment.mosaics(tmp_path, 3, (48, 48), seed=0)
  np.testing.assert_array_equal(pixels[..., 0], 50 * masks + 10)
  assert [len(np.unique(mask)) for mask in masks] == [4] * 3
  with pytest.raises(InputError, match="at least four directories"):
    segment.mosaics(tmp_path / "c0", 3, (48, 48), seed=0)


@pytest.mark.external
def test_it_compares_a_network_on_photographs_of_ones_own(segment, tmp_path, capsys):
  network = tiny.network(ARCH)
  network.dense.save(tmp_path / "w.safetensors")
  photos, masks = write_photographs(tmp_path)
  picture = tmp_path / "new" / "a.png"
  given = {"weights": tmp_path / "w.safetensors", "images": photos, "masks": masks}
  given |= {"budget": 0.6, "picture": picture}
  segment.main([f"--{name}={value}" for name, value in given.items()])
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert (found["images"], found["classes"]) == (3, 2)
  assert found["dense"]["miou"] == 100  # light and dark
  for name in ("dropped, zero", "dropped, nearest", "merged, nearest", "merged, unmerged"):
    one = found["0.6"][name]
    assert abs(one["share"] - 0.6) < 0.1
    low, high = one["interval"]
    assert low <= one["miou"] <= high
  assert Image.open(picture).size[0] > 300
  with pytest.raises(SystemExit):
    segment.main(["--images", str(photos)])
