"""What holds for every kind of source, a user's own among them."""

import functools
import pickle

import numpy as np
import pytest
from image_sets import PREPROCESSING, make_config, open_source

from asvit_jax.core.errors import InputError
from asvit_jax.data import digits, loader, sources, transforms


@pytest.mark.parametrize(
  ("data", "split", "message"),
  [
    (
      {"name": "imagenet"},
      "train",
      "'imagenet' is not known: choose from folder, digits, tfds, .*module:object; .*tfds:NAME",
    ),
    ({"name": "imagenet2012:5.1.0"}, "train", "is not known: .*; data of TFDS is tfds:NAME"),
    ({"name": "tfds", "dir": "{}"}, "train", "'tfds' names no data set: give tfds:NAME"),
    ({"name": "folder:flat", "dir": "{}"}, "train", "'folder:flat' is not known: give 'folder'"),
    ({"name": "digits:9-9", "dir": "{}"}, "train", "'digits:9-9' is not known: give 'digits'"),
    ({"name": "image_sets:shade"}, "train", "'image_sets:shade' cannot be imported"),
    ({"name": "image_sets:take"}, "train", "not a data source, it has no open and no class_names"),
    ({"name": "digits"}, "train", "data.dir is not set"),
    ({"name": "folder"}, "train", "data.dir is not set"),
    ({"dir": "{}/nowhere"}, "train", "nowhere.*is not a directory"),
    ({"dir": "{}"}, "test", "no split 'test'.*found train, val; data.train_split"),
    ({"dir": "{}/train"}, "a", "5 images and no directories of classes"),
    ({"name": "tfds:cifar10", "dir": "{}"}, "train", "not prepared under .*cifar10: set data.dir"),
  ],
)
def test_missing_data_is_explained(folder, data, split, message):
  if "dir" in data:
    data = data | {"dir": data["dir"].format(folder)}
  with pytest.raises(InputError, match=message):
    open_source(make_config(**data), split)


@pytest.fixture
def data(request, folder, small_digits, monkeypatch):
  """config.data for a kind of source; a new kind needs an example here."""
  prepared = functools.partial(digits.prepare, train_images=200, val_images=60)
  monkeypatch.setattr(digits, "prepare", prepared)
  root = small_digits.data_path.parents[2]
  examples = {
    "folder": {"dir": folder},
    "digits": {"name": "digits", "dir": root},
    "tfds": {"name": "tfds:translated_cluttered_digits", "dir": root},
    "own": {"name": "image_sets:shades"},
  }
  return make_config(**examples[request.param]).data


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("data", [*sources.SOURCES, "own"], indirect=True)
def test_every_kind_of_source_keeps_the_contract(data, split):
  source = sources.open_source(data, split)
  assert len(source) > 3
  assert all(isinstance(name, str) for name in source.classes)
  names = sources.class_names(data)
  assert names is None or len(names) == len(source.classes)

  examples = [source[i] for i in range(len(source))]
  keys = {"image", "label", "file"}
  assert {frozenset(example) for example in examples} in (
    {frozenset(keys)},
    {frozenset(keys | {"box"})},
  )
  for example in examples:
    assert transforms.decode(example["image"], example["file"]).mode == "RGB"
    assert type(example["image"]) is bytes
    assert type(example["label"]) is int
    assert 0 <= example["label"] < len(source.classes)
    assert type(example["file"]) is str
    if "box" in example:
      ymin, xmin, ymax, xmax = example["box"]
      assert example["box"].dtype == np.float32
      assert 0 <= ymin < ymax <= 1
      assert 0 <= xmin < xmax <= 1
  assert len({example["file"] for example in examples}) == len(source)

  copy = pickle.loads(pickle.dumps(source))
  assert (len(copy), copy.classes) == (len(source), source.classes)
  for index in (0, 3, len(source) - 1):
    np.testing.assert_equal(copy[index], examples[index])

  sources.check_images(source, limit=10)
  sample = sources.Sample(source, 3)
  assert (len(sample), sample.classes) == (3, source.classes)
  np.testing.assert_equal(sample[2], examples[-1])


@pytest.mark.parametrize("data", [*sources.SOURCES, "own"], indirect=True)
def test_the_loader_takes_every_kind_of_source(data):
  config = make_config()
  config.data, config.model.num_classes = data, len(sources.open_source(data, "val").classes)
  source = sources.open_source(data, "val")
  batches = list(loader.eval_batches(config, source, PREPROCESSING))
  files = [file for batch in batches for file in batch["file"] if file]
  labels = np.concatenate([batch["label"][batch["valid"]] for batch in batches])
  assert files == [source[i]["file"] for i in range(len(source))]
  assert labels.tolist() == [source[i]["label"] for i in range(len(source))]
  batch = next(loader.train_batches(config, sources.open_source(data, "train"), PREPROCESSING))
  assert (batch["image"].shape, batch["image"].dtype) == ((4, 16, 16, 3), np.uint8)


def test_a_source_of_ones_own_may_also_be_added_to_the_table(monkeypatch):
  monkeypatch.setitem(sources.SOURCES._places, "shades", "image_sets:shades")
  assert open_source(make_config(name="shades")).classes == ("dark", "bright")


def test_check_images_names_every_broken_file_at_once(folder):
  (folder / "train/a/broken.jpg").write_bytes(b"not an image")
  whole = (folder / "train/b/0.JPG").read_bytes()
  (folder / "train/b/truncated.jpg").write_bytes(whole[: len(whole) // 2])
  with pytest.raises(InputError, match="2 of 13 checked") as error:
    sources.check_images(open_source(make_config(dir=folder)), limit=100)
  assert "broken.jpg" in str(error.value)
  assert "truncated.jpg" in str(error.value)
