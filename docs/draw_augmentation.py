"""Draws augmented training images as a training step receives them.

PYTHONPATH=. python docs/draw_augmentation.py DIR OUT.png

DIR is a folder of `train/<class>/<image>`; the augmentation is that of the recipes for ImageNet.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from asvit_jax.config import imagenet
from asvit_jax.data import loader, sources
from asvit_jax.data.mixing import Mixing
from asvit_jax.data.preprocessing import Preprocessing

PREPROCESSING = Preprocessing()


def draw(config, columns=8):
  """A PIL image with one row for each of four batches."""
  source = sources.open_source(config.data, config.data.train_split)
  config.model.num_classes = len(source.classes)
  config.batch_size = columns
  mixing = jax.jit(Mixing(**config.mix))
  rows = []
  batches = loader.train_batches(config, source, PREPROCESSING)
  for step, batch in zip(range(4), batches, strict=False):
    targets = jax.nn.one_hot(batch["label"], config.model.num_classes)
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    images, _ = mixing(key, PREPROCESSING.normalize(batch["image"]), targets)
    rows.append(np.concatenate(_pixels(images), axis=1))
  return Image.fromarray(np.concatenate(rows))


def _pixels(images):
  """Reverts `Preprocessing.normalize`; clips noise that is beyond black and white."""
  mean, std = jnp.asarray(PREPROCESSING.mean), jnp.asarray(PREPROCESSING.std)
  return np.asarray(255 * jnp.clip(images * std + mean, 0, 1)).round().astype(np.uint8)


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("dir")
  parser.add_argument("out")
  parser.add_argument("--classes", default="", help="file with a class a line")
  parser.add_argument("--seed", type=int, default=10, help="10 shows mixup and cutmix")
  arguments = parser.parse_args()
  config = imagenet.recipe("deit_s", "dense", "")
  config.data.name, config.data.dir = "folder", arguments.dir
  config.data.classes, config.seed = arguments.classes, arguments.seed
  draw(config).save(arguments.out)
