"""Batches of decoded images from a source, on Grain.

A training batch is a pure function of (seed, step, shard, source): Grain derives every shuffle and
every augmentation from the seed and the example's position in the infinite stream, so a run
resumes by starting at its step, and neither threads nor worker processes change a pixel.
"""

import contextlib
import functools
import itertools
import math
import os

import grain
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.core.sizes import height_width
from asvit_jax.data import transforms
from asvit_jax.data import workers as workers_lib
from asvit_jax.data.balance import ClassBalanced, labels_of
from asvit_jax.data.rand_augment import fill_of, rand_augment
from asvit_jax.data.sources import check_label
from asvit_jax.data.sources.classes import listing

_MAX_THREADS = 16
# Evaluations of this many images or more use worker processes: these take seconds to start (10 to
# 20 on two busy cores), in which threads decode thousands of images.
_WORTH_WORKERS = 20_000


def train_batches(
  plan, source, preprocessing, start_step=0, shard_index=0, shard_count=1, bad_images=None
):
  """Iterates over training batches without end, shuffled anew every epoch.

  Every epoch contains every image once; a batch may straddle two epochs. With `data.repeats`
  (repeated augmentation, arXiv:1901.09335) every image appears that many times close together, each
  time with a new augmentation; an epoch keeps its number of views and so covers a part of the
  images. With `data.sampler` "class_balanced" every class appears equally often instead, see
  `balance`. The concatenation of all shards' batches k equals batch k without sharding.

  Args:
    plan: a `Plan`; `data`, `model.image_size`, `batch_size` and `seed` are read.
    source: a `Source`.
    preprocessing: the network's `Preprocessing`.
    start_step: number of the first batch.
    shard_index: which part of every global batch, usually `jax.process_index()`.
    shard_count: number of parts, usually `jax.process_count()`.
    bad_images: set that collects a message for each unreadable image; the source's next image
      replaces it.

  Returns:
    Iterator of {"image": (b, s, s, 3) uint8, "label": (b,) int32}, b = batch_size ÷ shard_count.

  Raises:
    InputError: the batch size or the classes do not fit; from the iterator, more unreadable images
      than `data.max_bad_images`, or a worker process that died.
  """
  batches = train_dataset(plan, source, preprocessing, shard_count)
  batches = batches[start_step * shard_count + shard_index :: shard_count]
  bad_images = set() if bad_images is None else bad_images
  return _iterate(batches, plan.data.workers, plan.data.max_bad_images, bad_images)


def train_dataset(plan, source, preprocessing, shard_count=1):
  """The endless dataset of batches, shards interleaved, with random access; see `train_batches`."""
  check_classes(plan, source)
  batch_size = _shard_batch_size(plan.batch_size, "batch_size", shard_count)
  decoded = _Decoded(source, plan.data.max_bad_images, plan.data.exif_orientation)
  examples = grain.MapDataset.source(decoded).seed(plan.seed)
  if plan.data.sampler == "class_balanced":
    examples = ClassBalanced(examples, labels_of(source), plan.seed)
  else:
    examples = examples.shuffle().repeat()
  if plan.data.repeats > 1:  # even a stage without effect would change Grain's later draws
    examples = _RepeatEach(examples, plan.data.repeats)
  # Without drop_remainder, the length of an infinite stream of batches of 1 overflows.
  views = examples.random_map(_TrainView(plan.model.image_size, preprocessing, plan.data))
  return views.batch(batch_size, drop_remainder=True, batch_fn=_collate)


def eval_batches(plan, source, preprocessing, shard_index=0, shard_count=1):
  """Iterates once over all images, in order; the last batches are padded.

  All shards return the same number of batches.

  Args:
    plan: a `Plan`; `data`, `model.image_size` and `eval.batch_size` are read.
    source: a `Source`.
    preprocessing: the network's `Preprocessing`.
    shard_index: which part of every global batch.
    shard_count: number of parts.

  Returns:
    Iterator of {"image": (b, s, s, 3) uint8, "label": (b,) int32, "valid": (b,) bool, "file": b
    str} and, if the source has boxes, "box": (b, 4) float32 in the frame of the image as
    returned; b = eval.batch_size ÷ shard_count.  Padding is zeros, not valid, and file ""; an
    unreadable image that `data.max_bad_images` allows becomes padding, too.

  Raises:
    InputError: the batch size or the classes do not fit; from the iterator, more unreadable images
      than `data.max_bad_images`.
  """
  check_classes(plan, source)
  batch_size = _shard_batch_size(plan.eval.batch_size, "eval.batch_size", shard_count)
  padded = math.ceil(len(source) / plan.eval.batch_size) * plan.eval.batch_size
  view = _EvalView(plan.model.image_size, preprocessing, plan.data, source)
  batches = grain.MapDataset.range(padded).map(view).batch(batch_size, batch_fn=_collate)
  workers = plan.data.workers if len(source) >= _WORTH_WORKERS else 0
  return _iterate(batches[shard_index::shard_count], workers, plan.data.max_bad_images, set())


class _Decoded:
  """A source with decoded images; an unreadable image is replaced by the next one."""

  def __init__(self, source, max_bad_images, exif_orientation):
    self._source = source
    self._max_bad_images = max_bad_images
    self._exif_orientation = exif_orientation

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    bad = []
    while True:
      try:
        place = (index + len(bad)) % len(self._source)
        example, image = _decode(self._source, place, self._exif_orientation, False)
        return {"image": image, "label": example["label"], "bad": bad}
      except InputError as error:
        bad.append(str(error))
        if len(bad) > self._max_bad_images:
          raise


def _decode(source, index, exif_orientation, may_be_unknown=True):
  example = source[index]
  check_label(example, len(source.classes), may_be_unknown)
  return example, transforms.decode(example["image"], example["file"], exif_orientation)


class _RepeatEach(grain.MapDataset):
  """Repeats every element `count` times, two elements alternating: a b a b a b and so on.

  Mixing pairs neighbours, which must not be the same image.
  """

  def __init__(self, parent, count):
    super().__init__(parent)
    self._count = count

  @functools.cached_property
  def _element(self):
    # Repeats are close together, so a small cache (two elements per thread) avoids decoding again.
    return functools.lru_cache(2 * _MAX_THREADS)(self._parent.__getitem__)

  def __len__(self):
    return len(self._parent)  # endless, like the parent

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    return self._element(2 * (index // (2 * self._count)) + index % 2)


class _TrainView:
  """Augments one decoded example."""

  def __init__(self, size, preprocessing, data):
    self._size, self._preprocessing, self._data = size, preprocessing, data
    self._fill = fill_of(preprocessing.mean)

  def __call__(self, example, rng):
    data, size, image = self._data, self._size, example["image"]
    if tuple(data.crop_scale) == (1.0, 1.0):
      image = transforms.center_crop(image, size, self._preprocessing)
    else:
      image = transforms.random_resized_crop(
        image, size, rng, scale=data.crop_scale, interpolation=self._preprocessing.interpolation
      )
    if data.shift:
      image = transforms.random_shift(image, data.shift, rng)
    if data.hflip and rng.random() < 0.5:
      image = transforms.hflip(image)
    if data.color_jitter:
      image = transforms.color_jitter(image, data.color_jitter, rng)
    if data.rand_augment:
      strength = data.rand_augment, data.rand_augment_deviation, data.rand_augment_operations
      image = rand_augment(image, rng, *strength, self._fill)
    return example | {"image": np.asarray(image), "label": np.int32(example["label"])}


class _EvalView:
  """Reads and decodes the example at an index; returns padding past the end."""

  def __init__(self, size, preprocessing, data, source):
    self._size, self._preprocessing = size, preprocessing
    self._max_bad_images = data.max_bad_images
    self._exif_orientation = data.exif_orientation
    self._source = source
    self._boxes = _has_boxes(source)

  def __call__(self, index):
    if index >= len(self._source):
      return self._padding()
    try:
      example, image = _decode(self._source, index, self._exif_orientation)
    except InputError as error:
      if not self._max_bad_images:
        raise
      return self._padding() | {"bad": [str(error)]}
    view = {
      "image": np.asarray(transforms.center_crop(image, self._size, self._preprocessing)),
      "label": np.int32(example["label"]),
      "valid": True,
      "file": example["file"],
      "bad": [],
    }
    if self._boxes:
      view["box"] = transforms.center_crop_box(
        example["box"], (image.height, image.width), self._size, self._preprocessing
      )
    return view

  def _padding(self):
    view = {
      "image": np.zeros((*height_width(self._size), 3), np.uint8),
      "label": np.int32(0),
      "valid": False,
      "file": "",
      "bad": [],
    }
    return view | {"box": np.zeros(4, np.float32)} if self._boxes else view


def _has_boxes(source):
  for index in range(len(source)):
    with contextlib.suppress(InputError):  # an unreadable image, which may be allowed
      return "box" in source[index]
  return False


def _collate(views):
  columns = {key: [view[key] for view in views] for key in views[0]}
  listed = ("file", "bad")
  return {key: value if key in listed else np.stack(value) for key, value in columns.items()}


def _iterate(batches, workers, max_bad_images, bad_images):
  """Prepares batches ahead of time, in threads or in `workers` processes."""
  # Threads and workers prepare whole batches, so the read-ahead is small when counted in batches.
  threads = 1 if workers else min(_MAX_THREADS, os.cpu_count() or 1)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
  dataset = batches.to_iter_dataset(options)
  if workers:
    dataset = workers_lib.prefetched(dataset, workers)
  stream = _stream(dataset, bool(workers), max_bad_images, bad_images)
  if workers:
    workers_lib.close_at_exit(stream)
  return stream


def _stream(dataset, workers, max_bad_images, bad_images):
  iterator = iter(dataset)
  following = workers_lib.following if workers else lambda iterator: next(iterator, None)
  try:
    while (batch := following(iterator)) is not None:
      for message in itertools.chain.from_iterable(batch.pop("bad")):
        if message not in bad_images:
          bad_images.add(message)
          count = f"{len(bad_images)}, data.max_bad_images is {max_bad_images}"
          if len(bad_images) > max_bad_images:
            raise InputError(f"too many unreadable images ({count}): {message}")
          log(f"WARNING: skipped an unreadable image ({count}): {message}")
      # Copy: a worker's arrays live in shared memory, which is freed when Grain drops them.
      yield {key: np.array(value) for key, value in batch.items()} if workers else batch
  finally:
    iterator.close()


def _shard_batch_size(batch_size, field, shard_count):
  if batch_size % shard_count:
    raise InputError(
      f"{field} {batch_size} is not divisible by the number of processes, {shard_count}: choose a "
      f"multiple of {shard_count}"
    )
  return batch_size // shard_count


def check_classes(plan, source):
  """Raises InputError unless the data has as many classes as the model."""
  if len(source.classes) != plan.model.num_classes:
    notes = "".join(f"; {note}" for note in getattr(source, "notes", ()))
    raise InputError(
      f"data set {plan.data.name!r} has {len(source.classes)} classes, but model.num_classes is "
      f"{plan.model.num_classes}: make them equal, or give data.classes, a file with the model's "
      f"classes in label order; it has {listing(source.classes)}{notes}"
    )
