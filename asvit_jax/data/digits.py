"""Translated, cluttered digits: a data set of real handwriting that needs no download.

Each image shows a digit somewhere on a dark canvas among fragments of other digits, as in the
cluttered MNIST of Mnih et al. 2014 (arXiv:1406.6247), made from the handwritten digits that ship
with scikit-learn. Most of an image is empty or a distraction, so pruning has tokens to remove, and
the box around the digit says which tokens matter.
"""

import contextlib
import dataclasses
import functools
import io
import time

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.data.sources.tfds import builder_of

CANVAS = 48  # pixels a side
DIGIT_SIZES = (22, 29)  # smallest and largest side of a digit, pixels
FRAGMENTS = 3
FRAGMENT_SIZES = (8, 9)
TRAIN_GLYPHS = 1_500  # of 1,797; the rest are for validation
INK = 16  # of the handwriting's 16 grey levels, one; fainter pixels are ringing of the resize


@dataclasses.dataclass(kw_only=True)
class DigitsConfig(tfds.core.BuilderConfig):
  """The number of images of each split; the prepared directory is named after them."""

  train_images: int
  val_images: int

  @classmethod
  @functools.cache  # TFDS compares its default configuration by identity
  def of(cls, train_images, val_images):
    """The configuration with the given numbers of images."""
    name = f"{train_images}-{val_images}"
    return cls(name=name, train_images=train_images, val_images=val_images)


class TranslatedClutteredDigits(tfds.core.GeneratorBasedBuilder):
  """Images with one whole digit each, its label and its bounding box."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = (DigitsConfig.of(12_000, 2_000),)

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      description="One handwritten digit on a black canvas among fragments of other digits.",
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(CANVAS, CANVAS, 1), encoding_format="png"),
          "label": tfds.features.ClassLabel(num_classes=10),
          "box": tfds.features.BBoxFeature(),
          "file": tfds.features.Text(),
        }
      ),
      supervised_keys=("image", "label"),
      disable_shuffling=True,  # the images are random already, and the loader shuffles
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    glyphs, labels = load_glyphs()
    order = np.random.default_rng(0).permutation(len(glyphs))
    train, val = order[:TRAIN_GLYPHS], order[TRAIN_GLYPHS:]
    config = self.builder_config
    return {
      "train": self._generate_examples("train", glyphs, labels, train, config.train_images),
      "val": self._generate_examples("val", glyphs, labels, val, config.val_images),
    }

  def _generate_examples(self, split, glyphs, labels, members, count):
    seed = {"train": 1, "val": 2}[split]
    for i in range(count):
      rng = np.random.default_rng((seed, i))
      chosen = rng.choice(members, size=1 + FRAGMENTS, replace=False)
      canvas, box = compose(glyphs[chosen[0]], glyphs[chosen[1:]], rng)
      png = io.BytesIO()
      Image.fromarray(canvas).save(png, "PNG")
      png.seek(0)
      yield (
        i,
        {
          "image": png,
          "label": int(labels[chosen[0]]),
          "box": box,
          "file": f"digits/{split}/{i:05d}-glyph{chosen[0]:04d}",
        },
      )


def load_glyphs():
  """Loads the handwritten digits of the UCI Optical Recognition set from scikit-learn.

  Returns:
    (1797, 8, 8) uint8 glyphs, white on black, and (1797,) int labels.

  Raises:
    InputError: scikit-learn is not installed.
  """
  try:
    from sklearn.datasets import load_digits
  except ImportError as error:
    raise InputError(
      "the digits data set is built from scikit-learn's handwriting, and scikit-learn is not "
      "installed: pip install scikit-learn"
    ) from error
  digits = load_digits()
  return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target


def compose(glyph, others, rng):
  """Composes one image of a digit and fragments of others.

  Args:
    glyph: (8, 8) uint8 digit.
    others: (n, 8, 8) uint8 glyphs; one fragment is cut from each.
    rng: np.random.Generator.

  Returns:
    (48, 48) uint8 canvas, and the tight box of the digit's ink, (4,) float32 as
    (ymin, xmin, ymax, xmax) relative to the canvas.
  """
  canvas = np.zeros((CANVAS, CANVAS), np.uint8)
  digit = _enlarge(glyph, rng)
  y, x = _paste(canvas, digit, rng)
  rows, columns = (np.flatnonzero((digit >= INK).any(axis)) for axis in (1, 0))
  box = np.array([y + rows[0], x + columns[0], y + rows[-1] + 1, x + columns[-1] + 1])
  for other in others:
    other = _enlarge(other, rng)
    size = rng.integers(FRAGMENT_SIZES[0], FRAGMENT_SIZES[1], endpoint=True)
    top, left = rng.integers(0, len(other) - size, size=2, endpoint=True)
    _paste(canvas, other[top : top + size, left : left + size], rng)
  return canvas, (box / CANVAS).astype(np.float32)


def _enlarge(glyph, rng):
  size = int(rng.integers(*DIGIT_SIZES, endpoint=True))
  return np.asarray(Image.fromarray(glyph).resize((size, size), Image.Resampling.BICUBIC))


def _paste(canvas, patch, rng):
  """Pastes a square patch at a random place, by the pixelwise maximum; returns its (y, x)."""
  size = len(patch)
  y, x = rng.integers(0, CANVAS - size, size=2, endpoint=True)
  window = canvas[y : y + size, x : x + size]
  np.maximum(window, patch, out=window)
  return y, x


def prepare(data_dir, train_images=12_000, val_images=2_000):
  """Builds the data set as array_record under `data_dir`, unless it exists.

  It is written to a temporary directory and renamed when complete, so an interrupted preparation
  starts again. The same versions of NumPy and Pillow give byte-identical examples; the files
  themselves differ between processes, as protocol buffers order their fields differently in each.

  Args:
    data_dir: TFDS data directory.
    train_images: number of images of the "train" split.
    val_images: number of images of the "val" split.

  Returns:
    TFDS builder of the prepared data.

  Raises:
    InputError: scikit-learn is missing, `data_dir` cannot be written, or its data is damaged.
  """
  config = DigitsConfig.of(train_images, val_images)
  try:
    builder = TranslatedClutteredDigits(data_dir=data_dir, config=config)
  except Exception as error:  # damaged files raise errors of many types
    raise InputError(
      f"the digits under data.dir {str(data_dir)!r} cannot be opened ({type(error).__name__}: "
      f"{' '.join(str(error).split())[:300]}): remove them, and they will be made again"
    ) from error
  directory = builder.data_path
  if not directory.exists():
    start = time.perf_counter()
    log(f"preparing {train_images:,} + {val_images:,} digits in {directory}")
    tfds.disable_progress_bar()
    try:
      with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download; there is none
        builder.download_and_prepare(file_format="array_record")
    except OSError as error:
      # Another process may have finished first; the rename onto its directory then fails.
      if not directory.exists():
        raise InputError(
          f"data.dir {str(data_dir)!r} cannot hold the digits data set ({error}): give a directory "
          "that can be written"
        ) from error
    log(f"prepared in {time.perf_counter() - start:.1f} s")
  # A builder that only reads can be pickled into a worker, unlike the one that wrote the data.
  return builder_of(directory, "digits")
