"""Data sets that TFDS has prepared, by name."""

import pytest
from image_sets import make_config, open_source, read_digits

from asvit_jax.core.errors import InputError
from asvit_jax.data import sources


def test_prepared_tfds_data_is_found_by_name(small_digits):
  root = small_digits.data_path.parents[2]
  name = "tfds:translated_cluttered_digits"
  ours = read_digits(small_digits, "val")
  for full_name in (name, f"{name}/200-60", f"{name}/200-60:1.0.0"):
    found = open_source(make_config(name=full_name, dir=root), "val")
    assert found[59]["image"] == ours[59]["image"]
  assert len(open_source(make_config(name=name, dir=root), "train[:10%]")) == 20
  with pytest.raises(InputError, match="no split 'test': choose from train, val"):
    open_source(make_config(name=name, dir=root), "test")
  with pytest.raises(InputError, match="not prepared"):
    open_source(make_config(name=f"{name}:9.9.9", dir=root), "train")


def test_names_of_classes_are_not_looked_for(tmp_path):
  assert sources.class_names(make_config(name="tfds:imagenet2012", dir=tmp_path).data) is None
