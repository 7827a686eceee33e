import json
import types

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny
from PIL import Image

from asvit_jax import complexity, curves, visualize, vit, weights
from asvit_jax import config as config_lib
from asvit_jax.data import transforms
from asvit_jax.errors import InputError


def shown(axes):
  return np.asarray(axes.images[0].get_array())


def patches(image, side):
  """(s, s, 3) -> (n, p, p, 3), row by row."""
  p = image.shape[0] // side
  return image.reshape(side, p, side, p, 3).swapaxes(1, 2).reshape(side * side, p, p, 3)


def write_images(directory, count, size):
  rng = np.random.default_rng(3)
  paths = [str(directory / f"{i}.png") for i in range(count)]
  for path in paths:
    Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
  return paths


@pytest.fixture
def config(folder, tiny_variant):
  """Of variant "tiny"; the centre crop is the whole of a square image."""
  return tiny.config(folder, **{"data.crop_ratio": 1.0})


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
  """Weights of variant "tiny" with thresholds that prune."""
  arch = tiny.TRAINED
  pixels = tiny.images(arch, 6)
  params = tiny.with_thresholds(arch, tiny.params(arch), pixels, (0.7, 0.5, 0.3))
  tensors = {k: np.asarray(v) for k, v in weights.to_timm(params).items()}
  path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
  safetensors.numpy.save_file(tensors, path)
  return path


@pytest.fixture
def command_line(monkeypatch, tmp_path):
  """The tool as a function of its flags."""

  def run(*paths, **given):
    defaults = dict(config=None, workdir=None, weights=None, count=8, curves=False)
    values = defaults | {"out": str(tmp_path / "out" / "picture.png")} | given
    fake = types.SimpleNamespace(FLAGS=types.SimpleNamespace(**values))
    monkeypatch.setattr(visualize, "flags", fake)
    return visualize.main([str(p) for p in paths])

  return run


@pytest.mark.parametrize(("size", "side"), [(48, 8), (224, 14), (15, 3)])
def test_pruned_patches_fade_towards_white_and_kept_ones_are_as_they_were(size, side):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
  keep = rng.random(side * side) < 0.5
  before = patches(image, side)
  after = patches(visualize.fade_pruned(image, keep), side)
  np.testing.assert_array_equal(after[keep], before[keep])
  expected = 255 - visualize.FADED * (255.0 - before[~keep])
  np.testing.assert_allclose(after[~keep], expected, atol=0.5)


def test_a_picture_has_a_row_an_image_and_a_column_a_stage():
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
  keeps = rng.random((2, 3, 9)) < 0.5
  titles = ["input", "one", "two", "three"]
  captions = [[f"{row}{column}" for column in range(4)] for row in range(2)]
  figure = visualize.token_picture(images, keeps, titles, captions)
  grid = np.array(figure.axes).reshape(2, 4)
  assert [axes.get_title() for axes in grid[0]] == titles
  assert [[axes.get_xlabel() for axes in row] for row in grid] == captions
  for row, image, keep in zip(grid, images, keeps, strict=True):
    np.testing.assert_array_equal(shown(row[0]), image)
    for axes, stage in zip(row[1:], keep, strict=True):
      np.testing.assert_array_equal(shown(axes), visualize.fade_pruned(image, stage))


@pytest.mark.parametrize("size", [48, 224])
def test_a_pixel_of_the_image_becomes_a_sharp_square_of_the_file(tmp_path, size):
  rng = np.random.default_rng(2)
  image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
  keep = np.ones((1, 1, 4), bool)
  figure = visualize.token_picture(image[None], keep, ["a", "b"], [["", ""]])
  visualize.save(figure, tmp_path / "p.png")
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
  captions = visualize._captions(["0" * 40] * 2, 0, 1.0, 1, keeps[0], 0.0123456, 0.0123456)
  figure = visualize.token_picture(
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
  figure = visualize.token_picture(images, keeps, ["a", "b"], [["", ""]], boxes)
  (rectangle,) = figure.axes[0].patches
  assert not figure.axes[1].patches
  # imshow gives pixel i the interval from i - 0.5 to i + 0.5.
  assert rectangle.get_bbox().bounds == pytest.approx((9.5, 4.5, 10, 10))


def test_tokens_drawn_are_those_that_the_network_keeps(config, weights_file, tmp_path):
  arch = tiny.TRAINED
  params = weights.load(arch, weights_file)
  paths = write_images(tmp_path, 2, arch.image_size)
  pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
  outputs = tiny.run_masked(arch, params, transforms.normalize(pixels))
  source = visualize.ImageFiles(paths, ("ant", "bee", "cat"))
  figure = visualize.draw_tokens(arch, params, config, source)
  grid = np.array(figure.axes).reshape(2, 4)
  dense = complexity.dense_gmacs(arch)
  for row, image, keep, kept, logits in zip(
    grid, pixels, outputs.keep, outputs.kept, outputs.logits, strict=True
  ):
    for axes, stage in zip(row[1:], keep, strict=True):
      np.testing.assert_array_equal(
        shown(axes), visualize.fade_pruned(image, np.asarray(stage) > 0.5)
      )
    counts = [int(axes.get_xlabel().split()[0]) for axes in row[1:]]
    assert counts == kept.tolist()
    gmacs = float(complexity.gmacs(arch, kept))
    assert row[3].get_xlabel().endswith(f"{gmacs:.3g} GMACs, {100 * gmacs / dense:.0f} % of dense")
    assert row[0].get_xlabel().split()[0] == source.classes[int(logits.argmax())]


def test_labelled_images_say_whether_the_prediction_is_right(config, weights_file):
  arch, params = tiny.TRAINED, weights.load(tiny.TRAINED, weights_file)
  source = visualize._images(config, [], 10)
  figure = visualize.draw_tokens(arch, params, config, source)
  answers = [axes.get_xlabel() for axes in figure.axes[::4]]
  assert len(answers) == 10
  labels = 4 * ["ant"] + 3 * ["bee"] + 3 * ["cat"]
  for answer, label in zip(answers, labels, strict=True):
    mark, prediction = answer.split()[:2]
    assert mark == ("✓" if prediction == label else "✗")
    assert (f"label {label}" in answer) == (prediction != label)


def test_the_tool_draws_files_or_images_of_the_split(config, weights_file, command_line, tmp_path):
  files = write_images(tmp_path, 2, 20)
  for paths, given, count in ((files, {}, 2), ((), {"count": 2}, 2)):
    result = command_line(*paths, config=config, weights=str(weights_file), **given)
    assert result["images"] == count
    with Image.open(result["out"]) as picture:
      assert picture.format == "PNG"
  assert len(visualize._images(config, [], visualize.MAX_ROWS)) == 10  # all there are
  config.data.classes = str(tmp_path / "classes.txt")
  (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
  assert visualize._images(config, files, 8).classes == ("ant", "bee", "cat")


def metrics_lines(pruned):
  lines = []
  for step in range(10, 110, 10):
    line = {"step": step, "kind": "train", "loss": 3 / step, "classification": 2 / step, "lr": 0.1}
    line |= {"kept": []}
    if pruned:
      line |= {"budget": 0.1 / step, "distillation": 1 / step, "gmacs": 1 - step / 200}
      line |= {"kept": [16.0, 100 / step], "thresholds": [0.001 * step, 0.002 * step]}
    lines.append(line)
  for step in (50, 100):
    kept = [{"mean": 15.0}, {"mean": 200 / step}] if pruned else []
    line = {"step": step, "kind": "eval", "top1": 0.5 * step, "gmacs": 0.7, "kept": kept}
    lines.append(line)
  return lines


def plotted(axes):
  """{label: (x, y)} of an axes; unlabelled lines by their number."""
  lines = enumerate(axes.lines)
  return {
    i if line.get_label().startswith("_") else line.get_label(): line.get_data()
    for i, line in lines
  }


def panels(figure):
  return {axes.get_title().split("(")[0].strip(): axes for axes in figure.axes}


def test_curves_are_the_values_of_the_metrics():
  lines = metrics_lines(pruned=True)
  drawn = panels(curves.draw_curves(lines, target_gmacs=0.6))
  train = [line for line in lines if line["kind"] == "train"]
  steps = [line["step"] for line in train]

  def check(curve, x, y):
    np.testing.assert_allclose(curve[0], x)
    np.testing.assert_allclose(curve[1], y)

  loss = plotted(drawn["training loss and its terms, unweighted"])
  for name in ("loss", "classification", "distillation", "budget"):
    check(loss[name], steps, [line[name] for line in train])  # too few to smooth
  check(plotted(drawn["evaluation: top-1, %"])[0], [50, 100], [25, 50])
  gmacs = plotted(drawn["GMACs an image"])
  check(gmacs["training"], steps, [line["gmacs"] for line in train])
  check(gmacs["evaluation"], [50, 100], [0.7, 0.7])
  np.testing.assert_allclose(gmacs["target 0.6"][1], 0.6)
  kept = plotted(drawn["patches kept by each stage"])
  thresholds = plotted(drawn["threshold of each stage"])
  for stage in range(2):
    check(kept[f"stage {stage + 1}"], steps, [line["kept"][stage] for line in train])
    check(thresholds[f"stage {stage + 1}"], steps, [line["thresholds"][stage] for line in train])
  check(kept[3], [50, 100], [4, 2])
  check(plotted(drawn["learning rate"])[0], steps, [0.1] * 10)


def test_a_dense_run_has_no_panels_of_pruning():
  figure = curves.draw_curves(metrics_lines(pruned=False))
  assert set(panels(figure)) == {"training loss", "evaluation: top-1, %", "learning rate"}


def test_smoothing_is_a_centred_mean_that_keeps_straight_lines():
  values = np.arange(200.0)
  np.testing.assert_allclose(curves._smooth(values)[5:-5], values[5:-5])
  noise = np.random.default_rng(0).standard_normal(200)
  assert curves._smooth(noise).std() < 0.5 * noise.std()


def test_curves_have_a_gap_where_a_step_was_skipped():
  lines = metrics_lines(pruned=True)
  lines[2]["loss"] = lines[2]["gmacs"] = None  # what is not finite is written as null
  drawn = panels(curves.draw_curves(lines))
  assert np.isnan(plotted(drawn["GMACs an image"])["training"][1]).sum() == 1


def test_the_tool_draws_the_curves_of_a_workdir(config, command_line, tmp_path):
  config_lib.save(config, tmp_path)
  text = "".join(json.dumps(line) + "\n" for line in metrics_lines(pruned=False))
  (tmp_path / "metrics.jsonl").write_text(text)
  result = command_line(workdir=str(tmp_path), curves=True)
  assert result["steps"] == 100
  with Image.open(result["out"]) as picture:
    assert picture.format == "PNG"


def test_errors_say_what_to_do(config, weights_file, command_line, tmp_path):
  dense = tmp_path / "dense.safetensors"
  weights.save(dense, vit.without_thresholds(weights.load(tiny.TRAINED, weights_file)))
  text = tmp_path / "text.png"
  text.write_text("not an image")
  (tmp_path / "file").touch()
  empty = tmp_path / "empty"
  config_lib.save(config, empty)
  (empty / "metrics.jsonl").touch()
  good = dict(config=config, weights=str(weights_file))
  cases = [
    (dict(good, out=None), (), "--out"),
    (dict(good, out="picture.jpg"), (), "picture.jpg.*png"),
    (dict(good, out=str(tmp_path / "file" / "p.png")), (), "cannot write the picture"),
    (dict(good, weights=str(dense)), (), "dense.safetensors has no thresholds.*--calibrate"),
    (dict(good, count=0), (), "0 images: expected 1 to"),
    (dict(good, count=1000), (), "1000 images: expected 1 to"),
    (good, [tmp_path / "missing.png"], "missing.png cannot be read"),
    (good, [text], "text.png is not a readable image"),
    (dict(config=config), (), "either --workdir or --weights"),
    (dict(weights=str(weights_file)), (), "--weights needs --config"),
    (dict(workdir=str(tmp_path / "nowhere")), (), "nowhere is not a workdir"),
    (dict(config=config, workdir=str(tmp_path / "nowhere")), (), "nowhere is not a workdir"),
    (dict(workdir=str(tmp_path / "nowhere"), curves=True), (), "nowhere has no metrics"),
    (dict(workdir=str(empty), curves=True), (), "empty.*no training metrics"),
    (dict(good, curves=True), (), "give --workdir"),
  ]
  for given, paths, message in cases:
    with pytest.raises(InputError, match=message):
      command_line(*paths, **given)


def test_thresholds_that_prune_nothing_leave_every_view_as_the_input(config, weights_file):
  arch = tiny.TRAINED
  params = weights.load(arch, weights_file) | {"thresholds": jnp.full(3, -1.0)}
  figure = visualize.draw_tokens(arch, params, config, visualize._images(config, [], 2))
  for row in np.array(figure.axes).reshape(2, 4):
    for axes in row[1:]:
      np.testing.assert_array_equal(shown(axes), shown(row[0]))
