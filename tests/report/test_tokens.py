import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from pictures import shown, write_images
from PIL import Image

from asvit_jax.data import sources
from asvit_jax.data.images import ImageFiles
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.report import tokens
from asvit_jax.sparsity import complexity

ARCH = tiny.TRAINED


def patches(image, rows, columns):
  """(height, width, 3) -> (n, p, p, 3), row by row."""
  p = image.shape[0] // rows
  return image.reshape(rows, p, columns, p, 3).swapaxes(1, 2).reshape(rows * columns, p, p, 3)


@pytest.fixture(scope="module")
def network():
  """Prunes differently in each image, of which it sees all."""
  params = tiny.with_thresholds(ARCH, tiny.params(ARCH), tiny.images(ARCH, 6), (0.7, 0.5, 0.3))
  return tiny.network(ARCH, preprocessing=Preprocessing(crop_ratio=1.0)).with_params(params)


@pytest.fixture
def config(folder):
  return tiny.config(folder)


@pytest.mark.parametrize(("patch", "grid"), [(6, (8, 8)), (16, (14, 28)), (5, (3, 2))])
def test_pruned_patches_fade_towards_white_and_kept_ones_are_as_they_were(patch, grid):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (patch * grid[0], patch * grid[1], 3), dtype=np.uint8)
  keep = rng.random(grid[0] * grid[1]) < 0.5
  before = patches(image, *grid)
  after = patches(tokens.fade_pruned(image, keep), *grid)
  np.testing.assert_array_equal(after[keep], before[keep])
  expected = 255 - tokens.FADED * (255.0 - before[~keep])
  np.testing.assert_allclose(after[~keep], expected, atol=0.5)


def test_a_picture_has_a_row_an_image_and_a_column_a_stage():
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
  keeps = rng.random((2, 3, 9)) < 0.5
  titles = ["input", "one", "two", "three"]
  captions = [[f"{row}{column}" for column in range(4)] for row in range(2)]
  figure = tokens.token_picture(images, keeps, titles, captions)
  grid = np.array(figure.axes).reshape(2, 4)
  assert [axes.get_title() for axes in grid[0]] == titles
  assert [[axes.get_xlabel() for axes in row] for row in grid] == captions
  for row, image, keep in zip(grid, images, keeps, strict=True):
    np.testing.assert_array_equal(shown(row[0]), image)
    for axes, stage in zip(row[1:], keep, strict=True):
      np.testing.assert_array_equal(shown(axes), tokens.fade_pruned(image, stage))


@pytest.mark.parametrize("size", [48, 224])
def test_a_pixel_of_the_image_becomes_a_sharp_square_of_the_file(tmp_path, size):
  rng = np.random.default_rng(2)
  image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
  keep = np.ones((1, 1, 4), bool)
  figure = tokens.token_picture(image[None], keep, ["a", "b"], [["", ""]])
  tokens.save(figure, tmp_path / "p.png")
  picture = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
  box = figure.axes[1].get_window_extent()
  assert box.width == pytest.approx(box.height, abs=1e-6)
  scale = box.width / size
  assert scale == pytest.approx(round(scale), abs=1e-6)
  inner = np.arange(1, size - 1)  # the frame lies on the outermost
  x = (box.x0 + (inner + 0.5) * scale).astype(int)
  y = (picture.shape[0] - box.y1 + (inner + 0.5) * scale).astype(int)
  np.testing.assert_array_equal(picture[np.ix_(y, x)], image[1:-1, 1:-1])


def test_texts_lie_in_the_picture_and_do_not_overlap():
  images = np.zeros((2, 32, 32, 3), np.uint8)
  keeps = np.ones((2, 1, 16), bool)
  captions = tokens._captions(["0" * 40] * 2, 0, 1.0, 1, keeps[0], 0.0123456, 0.0123456)
  figure = tokens.token_picture(
    images, keeps, ["input", "stage 1 (before block 10)"], [captions, captions]
  )
  figure.draw_without_rendering()
  boxes = [t.get_window_extent() for a in figure.axes for t in (a.title, a.xaxis.label)]
  boxes = [b for b in boxes if b.width > 1] + [a.get_window_extent() for a in figure.axes]
  assert len(boxes) == 2 + 4 + 4
  for i, box in enumerate(boxes):
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
    assert not any(box.overlaps(other) for other in boxes[:i])


def test_boxes_surround_their_pixels():
  images = np.zeros((1, 20, 20, 3), np.uint8)
  keeps = np.ones((1, 1, 4), bool)
  boxes = np.array([[0.25, 0.5, 0.75, 1.0]])  # rows 5 to 14, columns 10 to 19
  figure = tokens.token_picture(images, keeps, ["a", "b"], [["", ""]], boxes)
  (rectangle,) = figure.axes[0].patches
  assert not figure.axes[1].patches
  # imshow gives pixel i the interval from i - 0.5 to i + 0.5.
  assert rectangle.get_bbox().bounds == pytest.approx((9.5, 4.5, 10, 10))


def of_the_split(config, count):
  """Evenly spaced images of the evaluation split."""
  return sources.Sample(sources.open_source(config.data, config.data.eval_split), count)


def test_tokens_drawn_are_those_that_the_network_keeps(config, network, tmp_path):
  paths = write_images(tmp_path, 2, ARCH.image_size)
  pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
  outputs = tiny.run_masked(ARCH, network.params, tiny.normalize(pixels))
  source = ImageFiles(paths, ("ant", "bee", "cat"))
  figure = tokens.draw_tokens(network, tiny.plan(config), source)
  grid = np.array(figure.axes).reshape(2, 4)
  dense = complexity.dense_gmacs(ARCH)
  for row, image, keep, kept, logits in zip(
    grid, pixels, outputs.keep, outputs.kept, outputs.logits, strict=True
  ):
    for axes, stage in zip(row[1:], keep, strict=True):
      np.testing.assert_array_equal(shown(axes), tokens.fade_pruned(image, np.asarray(stage) > 0.5))
    counts = [int(axes.get_xlabel().split()[0]) for axes in row[1:]]
    assert counts == kept.tolist()
    gmacs = float(complexity.gmacs(ARCH, kept))
    assert row[3].get_xlabel().endswith(f"{gmacs:.3g} GMACs, {100 * gmacs / dense:.0f} % of dense")
    assert row[0].get_xlabel().split()[0] == source.classes[int(logits.argmax())]


def test_labelled_images_say_whether_the_prediction_is_right(config, network):
  figure = tokens.draw_tokens(network, tiny.plan(config), of_the_split(config, 10))
  answers = [axes.get_xlabel() for axes in figure.axes[::4]]
  assert len(answers) == 10
  labels = 4 * ["ant"] + 3 * ["bee"] + 3 * ["cat"]
  for answer, label in zip(answers, labels, strict=True):
    mark, prediction = answer.split()[:2]
    assert mark == ("✓" if prediction == label else "✗")
    assert (f"label {label}" in answer) == (prediction != label)


@pytest.mark.parametrize("classes", [None, ("ant", "bee", "cat")])
def test_files_are_drawn_with_the_class_names_that_the_network_knows(
  config, network, tmp_path, monkeypatch, classes
):
  figures = []
  monkeypatch.setattr(tokens, "save", lambda figure, path: figures.append((figure, path)))
  paths = write_images(tmp_path, 2, ARCH.image_size)
  network = dataclasses.replace(network, classes=classes)
  tokens.draw_files(network, tiny.plan(config), paths, "out.png")
  ((figure, path),) = figures
  assert path == "out.png"
  pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
  labels = tiny.run_masked(ARCH, network.params, tiny.normalize(pixels)).logits.argmax(axis=1)
  for axes, label in zip(figure.axes[::4], labels.tolist(), strict=True):
    assert axes.get_xlabel().split()[0] == (str(label) if classes is None else classes[label])


def test_thresholds_that_prune_nothing_leave_every_view_as_the_input(config, network):
  network = network.with_thresholds(jnp.full(3, -1.0))
  figure = tokens.draw_tokens(network, tiny.plan(config), of_the_split(config, 2))
  for row in np.array(figure.axes).reshape(2, 4):
    for axes in row[1:]:
      np.testing.assert_array_equal(shown(axes), shown(row[0]))
