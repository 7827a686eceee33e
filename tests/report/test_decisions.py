import dataclasses

import numpy as np
import pytest
import tiny
from pictures import shown

from asvit_jax.core.errors import InputError
from asvit_jax.report import decisions, tokens

# The second rounds the number of tokens up: then it is not the threshold alone that decides.
ARCHS = [tiny.TRAINED, dataclasses.replace(tiny.TRAINED, count_multiple=8)]
IMAGE = np.random.default_rng(5).integers(0, 256, (*tiny.TRAINED.image_shape[:2], 3), np.uint8)


def pruned(arch):
  """A network that prunes some tokens of `IMAGE` at every stage."""
  params, images = tiny.params(arch), tiny.images(arch, 6)
  return tiny.network(arch).with_params(tiny.with_thresholds(arch, params, images, (0.7, 0.5, 0.3)))


@pytest.fixture(scope="module", params=ARCHS, ids=["threshold", "rounded up"])
def network(request):
  return pruned(request.param)


@pytest.fixture(scope="module")
def drawn(network):
  """The input's axes, a list of each stage's three, and the outputs that they should show."""
  first, *others = decisions.draw_decisions(network, IMAGE).axes
  stages = [others[i : i + 3] for i in range(0, len(others), 3)]
  outputs = network(IMAGE[None], "masked")
  keep = np.asarray(outputs.keep[0]) > 0
  assert keep.any(axis=1).all() and not keep.all(axis=1).any()
  return first, stages, np.asarray(outputs.scores[0]), keep


@pytest.mark.slow
def test_a_stage_has_three_axes_and_the_image_its_own(drawn):
  first, stages, scores, _ = drawn
  np.testing.assert_array_equal(shown(first), IMAGE)
  assert [len(axes) for axes in stages] == [3] * len(scores)


def test_the_map_shows_the_scores_of_the_patches_that_came_to_the_stage(drawn):
  _, stages, scores, keep = drawn
  present = np.ones_like(keep[0])
  for (top, _, _), of_all, goes_on in zip(stages, scores, keep, strict=True):
    seen = top.images[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(seen).ravel(), ~present)
    np.testing.assert_array_equal(seen.compressed(), of_all[present])
    present = goes_on


def test_bars_are_the_scores_in_order_in_the_colour_of_what_becomes_of_them(drawn, network):
  _, stages, scores, keep = drawn
  present = np.ones_like(keep[0])
  thresholds = np.asarray(network.params["thresholds"])
  for (_, middle, _), of_all, goes_on, threshold in zip(
    stages, scores, keep, thresholds, strict=True
  ):
    heights = np.array([bar.get_height() for bar in middle.patches])
    places = np.array([bar.get_x() + bar.get_width() / 2 for bar in middle.patches])
    np.testing.assert_array_equal(heights[np.argsort(places)], np.sort(of_all[present])[::-1])
    kept, leaving = middle.containers
    assert sorted(b.get_height() for b in kept) == sorted(of_all[goes_on].tolist())
    assert len(leaving) == (present & ~goes_on).sum()
    (line,) = middle.lines
    assert list(line.get_ydata()) == pytest.approx([threshold, threshold])
    assert f"{threshold:.3g}" in middle.get_xlabel()
    present = goes_on


def test_the_last_row_shows_what_goes_on_and_counts_what_leaves(drawn):
  _, stages, _, keep = drawn
  before = keep[0].size
  for (_, _, bottom), goes_on in zip(stages, keep, strict=True):
    np.testing.assert_array_equal(shown(bottom), tokens.fade_pruned(IMAGE, goes_on))
    after = int(goes_on.sum())
    assert bottom.get_xlabel() == f"{before - after} leave, {after} go on"
    before = after


def test_drawing_twice_gives_the_same_file(network, tmp_path):
  for name in "ab":
    tokens.save(decisions.draw_decisions(network, IMAGE), tmp_path / f"{name}.png")
  assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("threshold", [-1.0, 1e9])
def test_stages_that_take_nothing_or_everything_are_drawn(threshold, tmp_path):
  network = pruned(tiny.TRAINED).with_thresholds(np.full(3, threshold, np.float32))
  figure = decisions.draw_decisions(network, IMAGE)
  tokens.save(figure, tmp_path / "p.png")
  n = tiny.TRAINED.patches
  expected = f"0 leave, {n} go on" if threshold < 0 else "0 leave, 0 go on"
  assert figure.axes[-1].get_xlabel() == expected


def test_a_dense_network_decides_nothing():
  with pytest.raises(InputError, match="no thresholds"):
    decisions.draw_decisions(pruned(tiny.TRAINED).dense, IMAGE)
