"""The page of an evaluation holds what the network does."""

import base64
import dataclasses
import io
import json
import pathlib
import re

import numpy as np
import pytest
import tiny
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.data import sources
from asvit_jax.data.images import load_image
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.evaluation.accuracy import evaluate
from asvit_jax.report import evaluated, images
from asvit_jax.report.page.contents import unpack_masks

ARCH = tiny.TRAINED


@pytest.fixture(scope="module")
def network():
  """Prunes differently in each image."""
  params = tiny.with_thresholds(ARCH, tiny.params(ARCH), tiny.images(ARCH, 6), (0.7, 0.5, 0.3))
  fields = dict(preprocessing=Preprocessing(crop_ratio=1.0), variant="tiny")
  return tiny.network(ARCH, **fields).with_params(params)


@pytest.fixture
def config(folder):
  return tiny.config(folder)


@pytest.fixture
def source(config):
  return sources.open_source(config.data, config.data.eval_split)


def data_of(path):
  text = pathlib.Path(path).read_text("utf-8")
  return json.loads(re.search(r'(?s)id="data">(.*?)</script>', text)[1])


@pytest.mark.parametrize("execution", [pytest.param("masked", marks=pytest.mark.slow), "packed"])
def test_pictures_are_what_the_network_and_its_dense_twin_make_of_them(
  config, network, source, execution, short_ladders
):
  gallery, dense = images.collect(network, config, source, execution)
  pixels = np.stack(
    [load_image(source[i]["file"], ARCH.image_size, network.preprocessing) for i in range(10)]
  )
  pruned = tiny.run_masked(ARCH, network.params, tiny.normalize(pixels))
  before = tiny.run_dense(ARCH.dense, network.dense.params, tiny.normalize(pixels))
  assert len(gallery.pictures) == 10  # the last batch of four is padded
  costs = network.gmacs(np.asarray(pruned.kept))
  for i, picture in enumerate(gallery.pictures):
    assert source[i]["file"].endswith(f"/{picture.file}")
    assert picture.label == source[i]["label"]
    keep = unpack_masks(picture.keep, ARCH.stages, ARCH.patches)
    np.testing.assert_array_equal(keep, np.asarray(pruned.keep[i]) > 0.5)
    assert picture.gmacs == pytest.approx(costs[i], rel=1e-5)
    for (said, probability), logits in (
      ((picture.prediction, picture.probability), np.asarray(pruned.logits[i], float)),
      (picture.dense, np.asarray(before.logits[i], float)),
    ):
      assert said == logits.argmax()
      assert probability == pytest.approx(1 / np.exp(logits - logits.max()).sum(), rel=1e-4)
    shown = Image.open(io.BytesIO(picture.jpeg))
    assert shown.size == (ARCH.image_size, ARCH.image_size)
  labels = np.array([picture.label for picture in gallery.pictures])
  assert dense["top1"] == pytest.approx(100 * (before.logits.argmax(axis=1) == labels).mean())
  assert dense["images"] == 10 and dense["share"] == 1


def test_a_page_has_the_numbers_of_the_evaluation_and_an_evenly_spaced_sample(
  config, network, source, tmp_path, short_ladders
):
  result = {"budget": 0.5} | evaluate(network, config, source)
  path = evaluated.write_report(tmp_path, network, config, source, [result], "packed", 4)
  assert path == str(tmp_path / "index.html")
  data = data_of(path)
  files = [picture["file"] for picture in data["gallery"]["pictures"]]
  assert files == ["ant/0.jpg", "ant/3.jpg", "bee/2.jpg", "cat/2.jpg"]
  (table,) = data["tables"]
  names = [column["name"] for column in table["columns"]]
  pruned, dense = (dict(zip(names, row, strict=True)) for row in table["rows"])
  for name, key in (("top-1, %", "top1"), ("GMACs", "gmacs")):
    assert pruned[name] == result[key]
  assert pruned["network"] == "budget 0.5" and dense["network"] == "without pruning"
  assert (pruned["images"], dense["images"]) == (10, 4)
  (chart,) = data["charts"]
  assert chart["series"][0]["points"][0]["y"] == result["top1"]
  assert chart["series"][0]["points"][0]["x"] == 100 * result["share"]
  notes = [tile["note"] for tile in data["tiles"]]
  assert notes[0] == f"dense {dense['top-1, %']:.1f} %, 4 images"


def test_every_budget_is_a_point_and_a_row(config, network, source, tmp_path, short_ladders):
  result = evaluate(network, config, source)
  results = [{"budget": b, **result, "share": b} for b in (0.5, 0.7, 0.9)]
  data = data_of(evaluated.write_report(tmp_path, network, config, source, results, "packed", 2))
  points = data["charts"][0]["series"][0]["points"]
  assert [(p["x"], p["note"]) for p in points] == [
    (pytest.approx(100 * b), f"budget {b}") for b in (0.5, 0.7, 0.9)
  ]
  assert len(data["tables"][0]["rows"]) == 4


def test_a_dense_network_has_pictures_without_masks(config, network, source, tmp_path):
  dense = network.dense
  result = evaluate(dense, config, source)
  data = data_of(evaluated.write_report(tmp_path, dense, config, source, [result], "dense"))
  assert data["gallery"]["stages"] == [] and data["charts"] == []
  assert len(data["gallery"]["pictures"]) == 10
  for picture in data["gallery"]["pictures"]:
    assert (picture["dense"], picture["keep"]) == (None, "")
    assert Image.open(io.BytesIO(base64.b64decode(picture["jpeg"]))).size == (16, 16)


def test_names_are_the_networks_where_it_knows_them(config, network, source):
  named = dataclasses.replace(network, classes=("one", "two", "three"))
  for given, names in ((network, ("ant", "bee", "cat")), (named, ("one", "two", "three"))):
    gallery, _ = images.collect(given, config, source, "masked", 10)
    assert gallery.classes == {label: names[label] for label in gallery.classes}
    assert {picture.label for picture in gallery.pictures} <= set(gallery.classes)


def test_images_that_cannot_be_read_are_left_out_where_allowed(config, network, source):
  pathlib.Path(source[3]["file"]).write_bytes(b"")
  with pytest.raises(InputError, match=r"3\.jpg"):
    images.collect(network, config, source, "masked")
  config.data.max_bad_images = 1
  gallery, dense = images.collect(network, config, source, "masked")
  assert len(gallery.pictures) == dense["images"] == 9
  assert "ant/3.jpg" not in [picture.file for picture in gallery.pictures]


@pytest.mark.parametrize(
  ("files", "expected"),
  [
    (["/a/b/x/1.jpg", "/a/b/y/1.jpg"], ["x/1.jpg", "y/1.jpg"]),
    (["/a/b/x1.jpg", "/a/b/x2.jpg"], ["x1.jpg", "x2.jpg"]),
    (["/a/b.jpg"], ["b.jpg"]),
    (["3", "31"], ["3", "31"]),
    (["x/1.jpg", "/a/1.jpg"], ["x/1.jpg", "/a/1.jpg"]),
  ],
)
def test_files_are_named_below_what_they_have_in_common(files, expected):
  cut = images._shared_directory(files)
  assert [file[cut:] for file in files] == expected
