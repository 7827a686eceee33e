"""Where images come from: random access to encoded images, their labels and their files."""

import concurrent.futures
import pathlib
from typing import Any, Protocol

import numpy as np

from asvit_jax.data import digits, transforms
from asvit_jax.data.folder import open_folder, read_classes
from asvit_jax.data.prepared import TfdsSource, prepared_builder
from asvit_jax.errors import InputError


class Source(Protocol):
  """A labelled set of images; picklable, so that Grain's workers can read it too.

  An example is a dict with `image` (encoded bytes), `label` (int), `file` (str: the path, or an
  id) and, where the data has one, `box` ((4,) float32 (ymin, xmin, ymax, xmax), relative).

  Attributes:
    classes: names of the classes in label order.
  """

  classes: tuple[str, ...]

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]: ...


def open_source(data, split, allow_flat=False):
  """Opens the split of the data set that the configuration names.

  Args:
    data: config.data: `name` is "digits", "folder" (`dir`/split/class/image) or "tfds:NAME[/CONFIG]
      [:VERSION]"; `dir`; for folders `classes`, a file whose lines start with the class
      directories in label order (default: the sorted directories of `train_split`).
    split: name of the split; for TFDS also an expression such as "train[:90%]".
    allow_flat: a folder may hold the class directories directly, with no directory `split`.

  Returns:
    A `Source`.

  Raises:
    InputError: the data is not there, or is not what was asked for.
  """
  if data.name.startswith("tfds:"):
    builder = prepared_builder(data.name.removeprefix("tfds:"), data.dir)
    return TfdsSource(builder, data.name, split)
  if data.name in ("digits", "folder") and not data.dir:
    raise InputError(f"data.dir is not set: data.name {data.name!r} needs a directory")
  if data.name == "digits":
    return TfdsSource(digits.prepare(data.dir), data.name, split)
  if data.name == "folder":
    return open_folder(data, split, allow_flat)
  raise InputError(
    f"data.name {data.name!r} is not known: give 'digits', 'folder' or 'tfds:NAME', for example "
    "'tfds:imagenet2012'"
  )


def class_names(data):
  """Names of the classes in label order, or None where the configuration does not lead to them.

  Args:
    data: config.data; where `classes` is a file, the words after the class directory are its name.

  Raises:
    InputError: a classes file that cannot be read.
  """
  if data.name == "digits":
    return [str(digit) for digit in range(10)]
  if data.name == "folder" and data.classes:
    read_classes(data.classes)
    lines = pathlib.Path(data.classes).expanduser().read_text().splitlines()
    return [line.split(maxsplit=1)[-1].strip() for line in lines if line.strip()]
  train = pathlib.Path(data.dir or ".", data.train_split)
  if data.name == "folder" and data.dir and train.is_dir():
    return sorted(entry.name for entry in train.iterdir() if entry.is_dir())
  return None


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
