"""Data sets that TFDS prepared say of which classes their features are, and TFDS imports these."""

import json
import shutil

import pytest
from image_sets import make_config, open_source

from asvit_jax.core.errors import InputError


@pytest.mark.parametrize("key", ["pythonClassName", "type"])
def test_features_of_others_are_not_imported(small_digits, tmp_path, monkeypatch, key):
  root = small_digits.data_path.parents[2]
  shutil.copytree(root, tmp_path / "data")
  (tmp_path / "theirs_features.py").write_text("open('mark', 'w').close()\n")
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  (file,) = (tmp_path / "data").rglob("features.json")
  features = json.loads(file.read_text())
  assert features["pythonClassName"].startswith("tensorflow_datasets.")
  if key == "type":  # as TFDS once wrote them
    features = {"type": "tensorflow_datasets.core.features.features_dict.FeaturesDict"}
    features["content"] = {"image": {"type": "theirs_features.Image", "content": {}}}
  else:
    features["featuresDict"]["features"]["image"][key] = "theirs_features.Image"
  file.write_text(json.dumps(features))
  config = make_config(name="tfds:translated_cluttered_digits", dir=tmp_path / "data")
  said = (
    r"features\.json names the feature 'theirs_features\.Image', whose code is not part of TFDS"
  )
  with pytest.raises(InputError, match=said):
    open_source(config, "val")
  assert not (tmp_path / "mark").exists()
