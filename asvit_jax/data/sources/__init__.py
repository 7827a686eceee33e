"""Where images come from: random access to encoded images, their labels and their files.

| data.name | data |
|---|---|
| `folder` | a directory of images, `data.dir`/split/class/image, or with a file of their classes |
| `digits` | the embedded digits, which `data.dir` gets when they are first asked for |
| `tfds:NAME[/CONFIG][:VERSION]` | what TFDS has prepared under `data.dir` |
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

UNKNOWN = -1  # the label of an image whose class nobody says: it can be shown, not learnt

# What to do with data in a bucket: array_record opens only files, and small objects come slowly.
ON_DISK = "copy it to one (gcloud storage rsync -r), or mount the bucket as one (gcsfuse)"


class Source(Protocol):
  """A labelled set of images; picklable, so that Grain's workers can read it too.

  An example is a dict with `image` (encoded bytes), `label` (int), `file` (str: the path, or an
  id) and, where the data has one, `box` ((4,) float32 (ymin, xmin, ymax, xmax), relative to the
  image as it is seen, turned as its camera says).

  It may also have `labels`, of all images, (images,) int array, for a sampler that would otherwise
  read every example; and `notes`, sentences about what is left out and what to know of the data.

  Attributes:
    classes: names of the classes in label order.
  """

  classes: tuple[str, ...]

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]: ...


def open_source(data, split, allow_flat=False):
  """Opens the split of the data set that the configuration names.

  Args:
    data: config.data: `name`, which chooses the kind, and what that kind reads: `dir`; for folders
      `classes`, a file of the class directories in label order (default: the directories of
      `train_split`, sorted), and `train_labels` and `eval_labels`, files of images and classes.
    split: name of the split; for TFDS also an expression such as "train[:90%]".
    allow_flat: a folder may hold the class directories directly, with no directory `split`.

  Returns:
    A `Source`; its notes are said once.

  Raises:
    InputError: the data is not there, or is not what was asked for.
  """
  source = _kind(data.name).open(data, split, allow_flat)
  for note in notes(source):
    _say(note)
  return source


def notes(*opened):
  """What `Source`s say of themselves, each sentence once, as a list."""
  return list(dict.fromkeys(n for source in opened for n in getattr(source, "notes", ())))


_say = functools.cache(log)


def class_names(data):
  """Names of the classes in label order, or None where the configuration does not lead to them.

  Args:
    data: config.data; where `classes` is a file, it may have names beside the directories.

  Raises:
    InputError: an unknown kind of source, or a classes file that cannot be read.
  """
  return _kind(data.name).class_names(data)


def check_order(known, data, source):
  """Raises InputError where data has the classes of a network in another order.

  Args:
    known: names of the network's classes in label order, or None.
    data: config.data.
    source: the `Source` that was opened by it.
  """
  if known is None:
    return
  known = tuple(known)
  for names in (class_names(data), source.classes):
    names = tuple(names or ())
    if names != known and sorted(names) == sorted(known):
      first = next(label for label in range(len(known)) if names[label] != known[label])
      raise InputError(
        f"the classes of data set {shown(data.name)} are those of the network in another order: "
        f"label {first} is {names[first]!r}, and was {known[first]!r} to the network; give "
        "data.classes, a file in the network's order, such as the network.json of its workdir"
      )
    if names == known:
      return


def check_label(example, count, may_be_unknown):
  """Raises InputError where an example's label is no class.

  Args:
    example: of a `Source`.
    count: of its classes.
    may_be_unknown: whether the label may be `UNKNOWN`, as of images that are only shown.
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
  """The kind of source that `data.name` chooses by what stands before its first colon."""
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
  """For a kind that reads `data.dir` and whose name is one word; raises InputError."""
  word, colon, _ = data.name.partition(":")
  if colon:
    raise InputError(
      f"data.name {shown(data.name)} is not known: give {word!r}, with nothing after it"
    )
  if not data.dir:
    raise InputError(f"data.dir is not set: data.name {shown(data.name)} needs a directory")
  storage.on_disk(data.dir, "data.dir", ON_DISK)


class Sample:
  """At most `limit` examples of a source, evenly spaced; itself a `Source`."""

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
  """Decodes images before a long run does, so that a broken one is found at once.

  Args:
    source: a `Source`.
    limit: how many to decode, evenly spaced; all when there are fewer.
    max_bad_images: that many may be unreadable.

  Raises:
    InputError: names the first five that cannot be decoded, and says how many there are.
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
