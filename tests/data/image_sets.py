"""Small sets of images, the config that leads to them, and batches of them."""

import io
import itertools
import os

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from asvit_jax.data import sources
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.data.sources.tfds import TfdsSource

PREPROCESSING = Preprocessing(crop_ratio=0.8)


def make_config(**data):
  """A config of three classes at 16 pixels; it does not say how images are cut to size."""
  config = ConfigDict(
    {
      "data": {
        "name": "folder",
        "dir": "",
        "classes": "",
        "train_split": "train",
        "eval_split": "val",
        "train_labels": "",
        "eval_labels": "",
        "exif_orientation": True,
        "sampler": "shuffle",
        "crop_scale": (0.2, 1.0),
        "hflip": True,
        "rand_augment": 0.0,
        "rand_augment_deviation": 0.5,
        "rand_augment_operations": 2,
        "color_jitter": 0.0,
        "repeats": 1,
        "cache": "",
        "workers": 0,
        "shift": 0,
        "max_bad_images": 0,
      },
      "model": {"image_size": 16, "num_classes": 3},
      "batch_size": 4,
      "eval": {"batch_size": 4},
      "seed": 3,
    }
  )
  config.data.update({k: str(v) if isinstance(v, os.PathLike) else v for k, v in data.items()})
  return config


def open_source(config, split="train", **kwargs):
  return sources.open_source(config.data, split, **kwargs)


def read_digits(builder, split):
  return TfdsSource(builder, "digits", split)


def smooth_image(rng, height=96, width=80):
  small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
  return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encode(image, kind="PNG", **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def write_folder(root):
  """Three classes of which "val" lacks one, of JPEG and PNG."""
  rng = np.random.default_rng(0)
  for split, counts in {"train": (5, 3, 3), "val": (2, 0, 3)}.items():
    for name, count in zip("abc", counts, strict=True):
      directory = root / split / name
      if count:
        directory.mkdir(parents=True)
      for i in range(count):
        smooth_image(rng).save(directory / f"{i}.{('JPG', 'png')[i % 2]}")
  return root


def take(batches, count):
  return list(itertools.islice(batches, count))


def assert_same_batches(ours, theirs):
  for a, b in zip(ours, theirs, strict=True):
    assert a.keys() == b.keys()
    for key in a:
      np.testing.assert_array_equal(a[key], b[key])


class Shades:
  """A kind of source that somebody else wrote: `data.name="image_sets:shades"`."""

  def open(self, data, split, allow_flat):
    return ShadesSource(tuple(self.class_names(data)), {"train": 6, "val": 4}[split])

  def class_names(self, data):
    return ["dark", "bright"]


class ShadesSource:
  def __init__(self, classes, count):
    self.classes, self._count = classes, count

  def __len__(self):
    return self._count

  def __getitem__(self, index):
    if not 0 <= index < self._count:
      raise IndexError(index)
    image = Image.new("RGB", (20, 30), (100 * (index % 2) + index,) * 3)
    return {"image": encode(image), "label": index % 2, "file": f"shade/{index}"}


shades = Shades()
