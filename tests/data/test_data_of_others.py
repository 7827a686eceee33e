"""Prepared data sets, lists of files and labels that somebody else wrote, or damaged."""

import json
import shutil
import sys
import zlib

import numpy as np
import pytest
from image_sets import PREPROCESSING, Shades, ShadesSource, make_config, open_source, take

from asvit_jax.core.errors import InputError
from asvit_jax.data import digits, loader
from asvit_jax.data.sources import listing

NAME = "tfds:translated_cluttered_digits"


@pytest.fixture
def prepared(small_digits, tmp_path):
  """A copy of prepared digits: TFDS's directory, and that of the files."""
  shutil.copytree(small_digits.data_path.parents[2], tmp_path / "tfds")
  (features,) = (tmp_path / "tfds").glob("*/*/*/features.json")
  return tmp_path / "tfds", features.parent


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name"])
def test_a_prepared_data_set_does_not_name_code_to_import(prepared, tmp_path, key, monkeypatch):
  root, directory = prepared
  (tmp_path / "evil_features.py").write_text("import sys\nsys.evil_features = True\n")
  monkeypatch.syspath_prepend(tmp_path)
  content = json.loads((directory / "features.json").read_text())
  content["featuresDict"]["features"]["more"] = {key: "evil_features.X", "jsonFeature": {}}
  (directory / "features.json").write_text(json.dumps(content))
  with pytest.raises(InputError, match=r"names the feature 'evil_features\.X'"):
    open_source(make_config(name=NAME, dir=root))
  with pytest.raises(InputError, match=r"names the feature 'evil_features\.X'"):
    digits.prepare(root, train_images=200, val_images=60)
  assert not hasattr(sys, "evil_features")


@pytest.mark.parametrize("content", ["{", "[1]", '{"a":' * 5000, "{}", '{"pythonClassName": 1}'])
@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
def test_a_damaged_description_is_one_line(prepared, content, file):
  root, directory = prepared
  (directory / file).write_text(content)
  for way in (
    lambda: open_source(make_config(name=NAME, dir=root)),
    lambda: digits.prepare(root, train_images=200, val_images=60),
  ):
    with pytest.raises(InputError) as error:
      way()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["..", "/", "../tfds/translated_cluttered_digits", "a\nb"])
def test_names_that_lead_out_of_the_directory_are_found_or_refused(prepared, name):
  root, _ = prepared
  if name.endswith("digits"):
    assert len(open_source(make_config(name=f"tfds:{name}", dir=root))) == 200
    return
  with pytest.raises(InputError, match=r"not prepared|has no split|cannot be opened"):
    open_source(make_config(name=f"tfds:{name}", dir=root))


@pytest.mark.parametrize("label", [-1, 3, 10**12, -2])
def test_labels_that_are_no_class_are_named(prepared, monkeypatch, label):
  root, _ = prepared
  source = open_source(make_config(name=NAME, dir=root))
  stored = {"image": source[0]["image"], "label": np.int64(label), "file": b"\xff.png"}
  source.classes = source.classes[:3]
  monkeypatch.setattr(source, "_examples", [stored] * 8)
  config = make_config()
  for make in (loader.train_batches, loader.eval_batches):
    with pytest.raises(InputError, match=r"png has (no label|the label -?\d+, and there are 3)"):
      take(make(config, source, PREPROCESSING), 1)


@pytest.mark.parametrize("label", [-1, 2, -7])
def test_labels_of_any_source_are_held_to_its_classes(monkeypatch, label):
  """-1 is an image whose class nobody says, which is shown, and not trained on."""
  get = ShadesSource.__getitem__
  monkeypatch.setattr(ShadesSource, "__getitem__", lambda *a: get(*a) | {"label": label})
  config = make_config()
  config.model.num_classes = 2
  source = Shades().open(config.data, "train", False)
  with pytest.raises(InputError, match=r"shade/\d has (no label|the label)"):
    take(loader.train_batches(config, source, PREPROCESSING), 1)
  if label == -1:
    (batch, _) = loader.eval_batches(config, source, PREPROCESSING)
    assert batch["label"].tolist() == [-1] * 4
    return
  with pytest.raises(InputError, match=r"shade/\d has the label"):
    take(loader.eval_batches(config, source, PREPROCESSING), 1)


@pytest.mark.parametrize(
  "directories",
  [
    [["a", 10**9, {}, {}]],
    [["a", -1, {}, {}]],
    [["a", "1", {}, {}]],
    [[1, 1, {}, {}]],
    [["a", 1, [], {}]],
    {"a": 1},
    "[" * 2000,
    None,
  ],
)
def test_a_list_of_files_that_is_none_is_made_anew(folder, tmp_path, monkeypatch, directories):
  """With a good checksum, which everybody can make."""
  monkeypatch.setattr(listing, "_LEAST", 1)
  config = make_config(dir=folder, cache=tmp_path / "cache")
  expected = len(open_source(config))
  (file,) = (tmp_path / "cache").iterdir()
  text = directories if isinstance(directories, str) else json.dumps(directories)
  text = text.encode() + b" " * (-len(text) % 8)
  body = text + np.arange(3, dtype=np.int64).tobytes() + b"x.png"
  header = np.array([zlib.crc32(body), len(text)], np.uint64).tobytes()
  file.write_bytes(listing._MAGIC + header + body)
  assert len(open_source(config)) == expected
