"""Data sets that TFDS has prepared, read without TensorFlow.

TFDS is imported only when a data set is opened, as its import is slow.
"""

import os

from asvit_jax.core import schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.data.sources import ON_DISK, UNKNOWN

_MOST_CLASSES = 1_000_000
# Keys by which `features.json`, in any version of TFDS, names a Python class.
_CLASS_KEYS = ("type", "pythonClassName", "python_class_name")


class Tfds:
  """Data prepared by TFDS, `tfds:NAME[/CONFIG][:VERSION]`; see `sources` for the interface."""

  def open(self, data, split, allow_flat):
    """Opens a split of a data set prepared under `data.dir`, or in TFDS's default directory.

    Raises:
      InputError: the name is missing, no such data set is prepared, it has no such split, or it
        has no images with labels.
    """
    del allow_flat
    return TfdsSource(prepared_builder(_name(data), data.dir), data.name, split)

  def class_names(self, data):
    """None: only the prepared files contain the names."""
    _name(data)


tfds = Tfds()


def _name(data):
  name = data.name.partition(":")[2]
  if not name:
    raise InputError(
      f"data.name {data.name!r} names no data set: give tfds:NAME, such as tfds:imagenet2012"
    )
  return name


class TfdsSource:
  """A split of a prepared data set with the features `image` and `label`.

  Args:
    builder: TFDS builder of the prepared data.
    name: name of the data set, for ids and messages.
    split: name of a split, or an expression such as "train[:90%]".
  """

  def __init__(self, builder, name, split):
    import tensorflow_datasets as library

    features = dict(builder.info.features.items())
    labelled = isinstance(features.get("label"), library.features.ClassLabel)
    if not labelled or "image" not in features:
      raise InputError(
        f"{name} has the features {', '.join(features)}: expected 'image' and 'label'; choose a "
        "data set for image classification"
      )
    count = features["label"].num_classes
    if not count or count > _MOST_CLASSES:
      raise InputError(f"{name} has {count} classes: expected 1 to {_MOST_CLASSES:,}")
    self.classes = tuple(features["label"].names)
    self._id = f"{name}/{split}"
    try:
      encoded = {"image": library.decode.SkipDecoding()}
      self._examples = builder.as_data_source(split, decoders=encoded)
    except NotImplementedError as error:
      raise InputError(
        f"{name} in {builder.data_dir} is stored as {builder.info.file_format.value}, which has no "
        f"random access: convert it with python -m asvit_jax.data.convert --name "
        f"{name.removeprefix('tfds:')}"
      ) from error
    except ValueError as error:
      raise InputError(
        f"{name} has no split {split!r}: choose from {', '.join(builder.info.splits)}"
      ) from error

  def __len__(self):
    return len(self._examples)

  def __getitem__(self, index):
    stored = self._examples[index]
    example = {"image": stored["image"], "label": int(stored["label"])}
    example["file"] = os.fsdecode(stored["file"]) if "file" in stored else f"{self._id}/{index}"
    if example["label"] == UNKNOWN:  # TFDS's label in splits whose labels are secret
      raise InputError(
        f"{example['file']} has no label, like all images of a contest's test split: choose a "
        "split with labels, data.eval_split"
      )
    if "box" in stored:
      example["box"] = stored["box"]
    return example


def prepared_builder(name, data_dir):
  """Finds a data set that was prepared before; never downloads.

  Unlike TFDS itself, this does not try for minutes to download a missing data set, and it opens the
  data sets of other builders: the prepared files contain everything needed for reading.

  Args:
    name: NAME[/CONFIG][:VERSION]; without a version, the newest.
    data_dir: TFDS data directory; None or "" for TFDS's own default.

  Returns:
    TFDS builder.

  Raises:
    InputError: the data set is missing, the name matches several configurations, or its features
      are not TFDS's own.
  """
  import tensorflow_datasets as library
  from etils import epath

  if data_dir:
    storage.on_disk(data_dir, "data.dir", ON_DISK)
  root = epath.Path(data_dir or library.core.constants.DATA_DIR).expanduser()
  path, _, version = name.partition(":")
  found = [
    info.parent
    for depth in ("", "*/", "*/*/")
    for info in (root / path).glob(f"{depth}dataset_info.json")
    if library.core.Version.is_valid(info.parent.name) and version in ("", info.parent.name)
  ]
  if not found:
    raise InputError(
      f"data set {name!r} is not prepared under {root / path}: set data.dir to where it is, or "
      f"prepare it with tfds.builder({name!r}, data_dir={str(root)!r})"
      ".download_and_prepare(file_format='array_record')"
    )
  configs = sorted({os.path.relpath(directory.parent, root) for directory in found})
  if len(configs) > 1:
    raise InputError(
      f"data set {name!r} is prepared in {len(configs)} configurations: name one of "
      f"{', '.join('tfds:' + config for config in configs)}"
    )
  newest = max(found, key=lambda directory: library.core.Version(directory.name))
  return builder_of(newest, name)


def builder_of(directory, name):
  """The TFDS builder of a prepared data set.

  Args:
    directory: directory of its files, an `epath.Path` or `pathlib.Path`.
    name: name of the data set, for messages.

  Raises:
    InputError: the data set is damaged, or names code outside TFDS.
  """
  import tensorflow_datasets as library

  _check_features(directory, name)
  try:
    return library.builder_from_directory(directory)
  except Exception as error:  # damaged files raise errors of many types
    raise InputError(
      f"data set {name!r} in {directory} cannot be opened ({type(error).__name__}: "
      f"{' '.join(str(error).split())[:300]}): prepare it again"
    ) from error


def _check_features(directory, name):
  """Raises InputError if the description of a data set names code outside TFDS.

  TFDS imports the module of every feature that `features.json` names.
  """
  path = directory / "features.json"
  if not path.exists():
    return
  try:
    content = storage.read(path, schema.MOST_BYTES)
  except OSError as error:
    raise InputError(f"{path} cannot be read ({error}): check its permissions") from error
  waiting = [schema.loads(content, schema.table(), f"data set {name!r}: {path}")]
  while waiting:
    node = waiting.pop()
    if isinstance(node, dict):
      kinds = [node[key] for key in _CLASS_KEYS if isinstance(node.get(key), str)]
      others = [kind for kind in kinds if not kind.startswith("tensorflow_datasets.")]
      if others:
        raise InputError(
          f"data set {name!r}: {path} names the feature {others[0]!r}, whose code is not part of "
          "TFDS, and would be run: prepare the data with features of TFDS, or give a data source "
          "of your own, data.name=package.module:object"
        )
    if isinstance(node, dict | list):
      waiting += node.values() if isinstance(node, dict) else node
