"""Data sets that TFDS has prepared, read without TensorFlow.

TFDS itself is imported where a data set is opened: who only asks for names does not pay for it.
"""

from asvit_jax.core import schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line
from asvit_jax.data.sources import ON_DISK

# What TFDS writes of the features of a data set, with the class of each.
_FEATURES, _CLASS_KEYS = "features.json", ("type", "pythonClassName", "python_class_name")
_OURS = "tensorflow_datasets."


class Tfds:
  """See `sources`; named `tfds:NAME[/CONFIG][:VERSION]`."""

  def open(self, data, split, allow_flat):
    """Opens a split of what is prepared under `data.dir`, by default where TFDS keeps data.

    Raises:
      InputError: no name, nothing prepared by that name, no such split, or not images with labels.
    """
    del allow_flat
    return TfdsSource(prepared_builder(_name(data), data.dir), data.name, split)

  def class_names(self, data):
    """None: only the prepared files know them."""
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
  """A split of a prepared data set with an image and a label.

  Args:
    builder: prepared TFDS builder.
    name: what to call it, for ids and messages.
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
    example["file"] = stored["file"].decode() if "file" in stored else f"{self._id}/{index}"
    if "box" in stored:
      example["box"] = stored["box"]
    return example


def prepared_builder(name, data_dir):
  """Finds a data set that was prepared before; never downloads.

  TFDS itself would try a missing one for minutes without a network, and does not know the builders
  of others; their prepared files say all that reading needs.

  Args:
    name: NAME[/CONFIG][:VERSION]; without a version, the newest.
    data_dir: TFDS data directory; None or "" for TFDS's own default.

  Returns:
    TFDS builder.

  Raises:
    InputError: it is not there, the name fits several of its configurations, or it has features of
      classes that are not of TFDS.
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
  configs = sorted({str(directory.parent.relative_to(root)) for directory in found})
  if len(configs) > 1:
    raise InputError(
      f"data set {name!r} is prepared in {len(configs)} configurations: name one of "
      f"{', '.join('tfds:' + config for config in configs)}"
    )
  newest = max(found, key=lambda directory: library.core.Version(directory.name))
  _check_features(newest)
  return library.builder_from_directory(newest)


def _check_features(directory):
  """Raises InputError where `features.json` names classes of others: TFDS would import them."""
  path = directory / _FEATURES
  if not path.exists():
    return
  try:
    content = storage.read(path, schema.MOST_BYTES)
  except OSError as error:
    raise InputError(f"{path} cannot be read ({error}): prepare the data set again") from error
  nodes = [schema.loads(content, schema.ANY, str(path), "prepare the data set again")]
  for node in nodes:  # which grows
    if isinstance(node, dict):
      named = [node[key] for key in _CLASS_KEYS if isinstance(node.get(key), str)]
      others = [name for name in named if not name.startswith(_OURS)]
      if others:
        raise InputError(
          f"{path} names the class {on_a_line(others[0])[:100]!r}, code from outside of TFDS, and "
          "opening data runs none: prepare it with features of TFDS, image and label"
        )
    if isinstance(node, (dict, list)):
      nodes.extend(node.values() if isinstance(node, dict) else node)
