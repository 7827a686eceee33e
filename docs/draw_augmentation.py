"""Draws views as a step of training gets them: python docs/draw_augmentation.py DIR OUT.png.

DIR is a folder of `train/<class>/<image>`; the augmentation is that of `configs/imagenet.py`.
"""

import argparse
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from asvit_jax.data import loader, sources, transforms
from asvit_jax.training.mixing import Mixing

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "configs"))
import imagenet


def draw(config, columns=8):
  """The sheet, a PIL image: a row for each of four batches; mixing takes pairs of neighbours."""
  source = sources.open_source(config.data, config.data.train_split)
  config.model.num_classes = len(source.classes)
  config.batch_size = columns
  mixing = jax.jit(Mixing(**config.mix))
  rows = []
  for step, batch in zip(range(4), loader.train_batches(config, source), strict=False):
    targets = jax.nn.one_hot(batch["label"], config.model.num_classes)
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    images, _ = mixing(key, transforms.normalize(batch["image"]), targets)
    rows.append(np.concatenate(_pixels(images), axis=1))
  return Image.fromarray(np.concatenate(rows))


def _pixels(images):
  """Undoes `transforms.normalize`, but for the noise beyond black and white."""
  mean, std = jnp.asarray(transforms.IMAGENET_MEAN), jnp.asarray(transforms.IMAGENET_STD)
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
