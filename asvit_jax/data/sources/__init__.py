"""Data sources: random access to encoded images, their labels and their files.

| data.name | data |
|---|---|
| `folder` | a directory of images, `data.dir`/split/class/image, or with a file of their classes |
| `digits` | the embedded digits, which are prepared in `data.dir` at first use |
| `tfds:NAME[/CONFIG][:VERSION]` | a data set that TFDS has prepared under `data.dir` |
| `package.module:object` | a source of your own |

A kind of source is an object with

  open(data, split, allow_flat): a `Source`; see `open_source`.
  class_names(data): names of the classes in label order, or None; see `class_names`.
"""

import concurrent.futures
import functools
from typing import Any, Protocol

import numpy as np

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.parts import Table
from asvit_jax.core.printable import shown
from asvit_jax.core.progress import log
from asvit_jax.data import transforms

SOURCES = Table(
  "data source",
  "data.name",
  {  # by place, as these modules import this one
    "folder": "asvit_jax.data.sources.folder:folder",
    "digits": "asvit_jax.data.sources.digits:digits",
    "tfds": "asvit_jax.data.sources.tfds:tfds",
  },
)

UNKNOWN = -1  # the label of an image of unknown class: it can be shown, not learnt

# Advice for data in a bucket: array_record opens files only, and small objects are slow to read.
ON_DISK = "copy it to one (gcloud storage rsync -r), or mount the bucket as one (gcsfuse)"


class Source(Protocol):
  """A labelled set of images; picklable, so that Grain's workers can read it, too.

  An example is a dict with `image` (encoded bytes), `label` (int), `file` (str: the path, or an id)
  and, if the data has boxes, `box` ((4,) float32 (ymin, xmin, ymax, xmax), relative to the image
  after rotation by its EXIF data).

  Optional attributes: `labels`, (images,) int array, saves a sampler from reading every example;
  `notes` are sentences about ignored files and other facts that the user should know.

  Attributes:
    classes: names of the classes in label order.
  """

  classes: tuple[str, ...]

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]: ...


def open_source(data, split, allow_flat=False):
  """Opens a split of the data set that the config names.

  Args:
    data: config.data: `name` chooses the kind of source; `dir` is its directory. Folders also read
      `classes`, a file of the class directories in label order (default: the sorted directories
      of `train_split`), and `train_labels` and `eval_labels`, files of images and their classes.
    split: name of the split; for TFDS also an expression such as "train[:90%]".
    allow_flat: a folder may hold the class directories directly, with no directory `split`.

  Returns:
    A `Source`; its notes are logged, each once per process.

  Raises:
    InputError: the data is missing or not as the config says.
  """
  source = _kind(data.name).open(data, split, allow_flat)
  for note in notes(source):
    _say(note)
  return source


def notes(*opened):
  """The notes of `Source`s as a list, each sentence once."""
  return list(dict.fromkeys(n for source in opened for n in getattr(source, "notes", ())))


_say = functools.cache(log)


def class_names(data):
  """Names of the classes in label order, or None if the config alone does not determine them.

  Args:
    data: config.data; a file of `classes` may give names beside the directories.

  Raises:
    InputError: an unknown kind of source, or a classes file that cannot be read.
  """
  return _kind(data.name).class_names(data)


def check_order(known, data, source):
  """Raises InputError if the data has the classes of a network in another order.

  Args:
    known: names of the network's classes in label order, or None.
    data: config.data.
    source: the `Source` opened by it.
  """
  if known is None:
    return
  known = tuple(known)
  for names in (class_names(data), source.classes):
    names = tuple(names or ())
    if names != known and sorted(names) == sorted(known):
      first = next(label for label in range(len(known)) if names[label] != known[label])
      raise InputError(
        f"data set {shown(data.name)} has the network's classes in another order: label {first} is "
        f"{names[first]!r} in the data and {known[first]!r} in the network; give data.classes, a "
        "file in the network's order, such as the network.json of its workdir"
      )
    if names == known:
      return


def check_label(example, count, may_be_unknown):
  """Raises InputError if an example's label is not a class.

  Args:
    example: an example of a `Source`.
    count: number of classes.
    may_be_unknown: whether the label may be `UNKNOWN`, as for images that are only shown.
  """
  label = example["label"]
  if label == UNKNOWN:
    if not may_be_unknown:
      raise InputError(f"{example['file']} has no label: leave it out of the training images")
  elif not 0 <= label < count:
    raise InputError(
      f"{example['file']} has the label {label}, and there are {count} classes: expected 0 to "
      f"{count - 1}; correct the data"
    )


def _kind(name):
  """The kind of source that `data.name` chooses by the text before its first colon."""
  before = name.partition(":")[0]
  try:
    kind = SOURCES[before if before in SOURCES else name]
  except InputError as error:
    raise InputError(f"{error}; data of TFDS is tfds:NAME, such as tfds:imagenet2012") from error
  missing = [part for part in ("open", "class_names") if not callable(getattr(kind, part, None))]
  if missing:
    raise InputError(
      f"data.name {shown(name)} is not a data source, it has no {' and no '.join(missing)}: see "
      "asvit_jax.data.sources"
    )
  return kind


def check_directory(data):
  """Raises InputError unless `data.dir` is set and on a disk and `data.name` is a single word."""
  word, colon, _ = data.name.partition(":")
  if colon:
    raise InputError(
      f"data.name {shown(data.name)} is not known: give {word!r}, with nothing after it"
    )
  if not data.dir:
    raise InputError(f"data.dir is not set: data.name {shown(data.name)} needs a directory")
  storage.on_disk(data.dir, "data.dir", ON_DISK)


class Sample:
  """At most `limit` evenly spaced examples of a source; itself a `Source`."""

  def __init__(self, source, limit):
    count = min(limit, len(source))
    self.classes = source.classes
    self._source = source
    self._indices = np.linspace(0, len(source) - 1, count).round().astype(int).tolist()

  def __len__(self):
    return len(self._indices)

  def __getitem__(self, index):
    return self._source[self._indices[index]]


def check_images(source, limit, max_bad_images=0):
  """Decodes a sample of images before a long run, to find broken ones early.

  Args:
    source: a `Source`.
    limit: number of images to decode, evenly spaced; all if there are fewer.
    max_bad_images: number of unreadable images allowed.

  Raises:
    InputError: too many images cannot be decoded; the message names the first five and the count.
  """

  def problem(index):
    try:
      example = sample[index]
      transforms.decode(example["image"], example["file"])
    except InputError as error:
      return str(error)

  sample = Sample(source, limit)
  with concurrent.futures.ThreadPoolExecutor() as pool:
    problems = [message for message in pool.map(problem, range(len(sample))) if message]
  if len(problems) > max_bad_images:
    more = "" if len(problems) <= 5 else f"; and {len(problems) - 5} more"
    raise InputError(
      f"{len(problems)} of {len(sample)} checked images cannot be used: "
      f"{'; '.join(problems[:5])}{more}; data.max_bad_images, now {max_bad_images}, allows some"
    )
