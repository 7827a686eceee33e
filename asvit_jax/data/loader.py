"""Batches of decoded images from a source, on Grain.

A training batch is a pure function of (seed, step, shard, source): Grain derives every shuffle and
every augmentation from the seed and the example's position in the infinite stream, so a run
resumes by starting at its step, and neither threads nor worker processes change a pixel.
"""

import atexit
import math
import os
import weakref

import grain
import numpy as np
from absl import flags

from asvit_jax.data import transforms
from asvit_jax.data.rand_augment import rand_augment
from asvit_jax.errors import InputError


def train_batches(config, source, start_step=0, shard_index=0, shard_count=1):
  """Iterates over training batches without end, shuffled anew every epoch.

  Every epoch has every image once; a batch may straddle two.  With `data.repeats` (repeated
  augmentation, arXiv:1901.09335) every image comes that many times close together, each time
  augmented anew, so an epoch, which stays as many views, has a part of the images.  Batch k of all
  shards, one after the other, is batch k without sharding.

  Args:
    config: the configuration; `data`, `model.image_size`, `batch_size` and `seed` are read.
    source: a `Source`.
    start_step: number of the first batch.
    shard_index: which part of every global batch, usually `jax.process_index()`.
    shard_count: number of parts, usually `jax.process_count()`.

  Returns:
    Iterator of {"image": (b, s, s, 3) uint8, "label": (b,) int32}, b = batch_size ÷ shard_count.

  Raises:
    InputError: the batch size or the classes do not fit; from the iterator, an unreadable image.
  """
  check_classes(config, source)
  batch_size = _shard_batch_size(config.batch_size, "batch_size", shard_count)
  examples = grain.MapDataset.source(source).seed(config.seed).shuffle().repeat()
  if config.data.repeats > 1:  # a stage that does nothing would still change Grain's later draws
    examples = _RepeatEach(examples, config.data.repeats)
  # Without drop_remainder the length of an infinite batch-of-1 stream overflows.
  batches = examples.random_map(_TrainView(config)).batch(batch_size, drop_remainder=True)
  batches = batches[start_step * shard_count + shard_index :: shard_count]
  return _iterate(batches, config.data.workers)


def eval_batches(config, source, shard_index=0, shard_count=1):
  """Iterates once over all images, in order; the last batches are padded.

  Every shard gives the same number of batches.

  Args:
    config: the configuration; `data`, `model.image_size` and `eval.batch_size` are read.
    source: a `Source`.
    shard_index: which part of every global batch.
    shard_count: number of parts.

  Returns:
    Iterator of {"image": (b, s, s, 3) uint8, "label": (b,) int32, "valid": (b,) bool, "file": b
    str} and, if the source has boxes, "box": (b, 4) float32 in the frame of the image as
    returned; b = eval.batch_size ÷ shard_count.  Padding is zeros, not valid, and file "".

  Raises:
    InputError: the batch size or the classes do not fit; from the iterator, an unreadable image.
  """
  check_classes(config, source)
  batch_size = _shard_batch_size(config.eval.batch_size, "eval.batch_size", shard_count)
  padded = math.ceil(len(source) / config.eval.batch_size) * config.eval.batch_size
  batches = (
    grain.MapDataset.range(padded)
    .map(_EvalView(config, source))
    .batch(batch_size, batch_fn=_collate)
  )
  return _iterate(batches[shard_index::shard_count], workers=0)


class _RepeatEach(grain.MapDataset):
  """Every element of a dataset `count` times, two elements in turn: a b a b a b and so on.

  Mixing pairs neighbours, which should not be the same image.
  """

  def __init__(self, parent, count):
    super().__init__(parent)
    self._count = count

  def __len__(self):
    return len(self._parent)  # endless, as the parent is

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    return self._parent[2 * (index // (2 * self._count)) + index % 2]


class _TrainView:
  """Decodes and augments one example."""

  def __init__(self, config):
    self._size = config.model.image_size
    self._data = config.data

  def __call__(self, example, rng):
    data, size = self._data, self._size
    image = transforms.decode(example["image"], example["file"])
    if tuple(data.crop_scale) == (1.0, 1.0):
      image = transforms.center_crop(image, size, data.crop_ratio)
    else:
      image = transforms.random_resized_crop(image, size, rng, scale=data.crop_scale)
    if data.get("shift", 0):
      image = transforms.random_shift(image, data.shift, rng)
    if data.hflip and rng.random() < 0.5:
      image = transforms.hflip(image)
    if data.color_jitter:
      image = transforms.color_jitter(image, data.color_jitter, rng)
    if data.rand_augment:
      image = rand_augment(
        image, rng, data.rand_augment, data.rand_augment_deviation, data.rand_augment_operations
      )
    return {"image": np.asarray(image), "label": np.int32(example["label"])}


class _EvalView:
  """Reads and decodes the example at an index; past the end, padding."""

  def __init__(self, config, source):
    self._size = config.model.image_size
    self._crop_ratio = config.data.crop_ratio
    self._source = source
    self._boxes = "box" in source[0]

  def __call__(self, index):
    size = self._size
    if index < len(self._source):
      example = self._source[index]
      image = transforms.decode(example["image"], example["file"])
      view = {
        "image": np.asarray(transforms.center_crop(image, size, self._crop_ratio)),
        "label": np.int32(example["label"]),
        "valid": True,
        "file": example["file"],
      }
      if self._boxes:
        view["box"] = transforms.center_crop_box(
          example["box"], (image.height, image.width), size, self._crop_ratio
        )
      return view
    view = {
      "image": np.zeros((size, size, 3), np.uint8),
      "label": np.int32(0),
      "valid": False,
      "file": "",
    }
    if self._boxes:
      view["box"] = np.zeros(4, np.float32)
    return view


def _collate(views):
  columns = {key: [view[key] for view in views] for key in views[0]}
  return {key: value if key == "file" else np.stack(value) for key, value in columns.items()}


def _iterate(batches, workers):
  """Makes batches ahead of need, in threads, or in as many worker processes as asked for."""
  # A thread or a worker makes whole batches, so read-ahead is counted, and kept small, in batches.
  threads = 1 if workers else min(16, os.cpu_count() or 1)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
  dataset = batches.to_iter_dataset(options)
  if workers:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # Grain hands absl's flags to its workers, also where none are
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
    )
  stream = _stream(dataset, copy=bool(workers))
  if workers:  # still open at exit, they would complain of leaks
    alive = weakref.ref(stream)
    atexit.register(lambda: alive() and alive().close())
  return stream


def _stream(dataset, copy):
  iterator = iter(dataset)
  try:
    for batch in iterator:
      # A worker's arrays live in shared memory that goes when Grain drops them.
      yield {key: np.array(value) for key, value in batch.items()} if copy else batch
  finally:
    iterator.close()


def _shard_batch_size(batch_size, field, shard_count):
  if batch_size % shard_count:
    raise InputError(
      f"{field} {batch_size} does not divide among {shard_count} processes: choose a multiple of "
      f"{shard_count}"
    )
  return batch_size // shard_count


def check_classes(config, source):
  """Raises InputError unless the data has as many classes as the model."""
  if len(source.classes) != config.model.num_classes:
    raise InputError(
      f"data set {config.data.name!r} has {len(source.classes)} classes, but model.num_classes is "
      f"{config.model.num_classes}: make them equal, or give data.classes, a file with the model's "
      "classes in label order"
    )
