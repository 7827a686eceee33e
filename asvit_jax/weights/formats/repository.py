"""Directories in the Hugging Face hub's layout: weights, possibly in shards, and configs."""

from asvit_jax.core import schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line
from asvit_jax.run import layout
from asvit_jax.weights import checks
from asvit_jax.weights.formats import hub_config
from asvit_jax.weights.formats.pytorch import pytorch
from asvit_jax.weights.formats.safetensors import safetensors
from asvit_jax.weights.stored import Stored

# In the order of preference.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
WEIGHTS += ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# Shards are beside their index, with plain names: other paths could lead anywhere.
_SHARD = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.(safetensors|bin)\Z"}
_INDEX = schema.table({"weight_map": schema.table(others=_SHARD)}, required=["weight_map"])


class Repository:
  """The format of directories in the hub's layout; see `formats`."""

  expects = "a directory with model.safetensors or pytorch_model.bin"
  takes_key = True

  def recognizes(self, source):
    """Whether the source is a directory in the hub's layout, or an index of shards.

    It has weights under the hub's names, or its configs alone, which `read` refuses.

    A directory that also contains checkpoints of a run is taken as the run: it was exported into
    its own workdir, and only the run has a `step` and `weights_of` to choose.
    """
    path = storage.path(source)
    if path.name in INDICES:
      return path.is_file()
    if not weights_in(path):
      return _only_configs(path)
    return not ((path / "checkpoints").is_dir() and layout.is_run(path))

  def read(self, source, key="", named=None):
    """The `Stored` of a directory or an index; see `formats`.

    Args:
      source: the directory, or an index.
      key: see `formats`.
      named: the user's name of the source, for errors.
    """
    path, name = storage.path(source), f"weights {named or source}"
    index = path if path.name in INDICES else None
    directory = path.parent if index is not None else path
    if not weights_in(directory):
      found = ", ".join(n for n in hub_config.NAMES if (directory / n).is_file())
      raise InputError(
        f"{name} has {found}, but no weights: fetch its weights, too, under one of the names "
        f"{', '.join((*WEIGHTS, *INDICES))}, or give their path"
      )
    for file in WEIGHTS if index is None else ():
      if (directory / file).is_file():
        stored = _read(directory / file, key)
        break
    else:
      index = index or next(directory / i for i in INDICES if (directory / i).is_file())
      stored = _joined(index, name, key)
    return (
      stored
      if "architecture" in stored.description
      else hub_config.applied(stored, directory, name)
    )


repository = Repository()


def weights_in(directory):
  """The hub's names of weight files that exist in a directory, a path."""
  return [name for name in (*WEIGHTS, *INDICES) if (directory / name).is_file()]


def _only_configs(directory):
  """Whether a directory without weights has configs of the hub, and is no run's."""
  if layout.is_run(directory) or layout.steps(directory):
    return False
  return any((directory / name).is_file() for name in hub_config.NAMES)


def shards(index, name):
  """The names of the files that an index lists.

  Raises:
    InputError: the file is not an index.
  """
  return sorted(set(_weight_map(index, name).values()))


def _weight_map(index, name):
  what = f"{name}: {index.name}"
  try:
    content = storage.read(index, schema.MOST_BYTES)
  except OSError as error:
    raise InputError(f"{what} cannot be read ({error}): fetch it again") from error
  content = schema.loads(content, _INDEX, f"{what} is not an index of shards", "fetch it again")
  if not content["weight_map"]:
    raise InputError(f"{what} is not an index of shards: it lists no files: fetch it again")
  return content["weight_map"]


def _joined(index, name, key):
  listed, tensors = _weight_map(index, name), {}
  for file in shards(index, name):
    if not (index.parent / file).is_file():
      raise InputError(
        f"{name}: the shard {file} that {index.name} lists is missing: fetch it, too"
      )
    found = _read(index.parent / file, "").tensors
    if twice := found.keys() & tensors.keys():
      raise InputError(
        f"{name}: tensor {min(twice)} is in two shards that {index.name} lists: fetch them again"
      )
    tensors |= found
  checks.check_listed({k: (v.shape, v.dtype.name) for k, v in tensors.items()}, name)
  counted = {n for n in listed if not n.endswith(".num_batches_tracked")}
  if missing := sorted(counted - tensors.keys()):
    raise InputError(
      f"{name}: {len(missing)} tensors that {index.name} lists are in no shard, "
      f"{on_a_line(missing[0][:60])} among them: fetch the shards again"
    )
  return Stored(tensors, key=key)


def _read(path, key):
  if path.suffix.lower() == ".safetensors":
    return safetensors.read(str(path), key)
  return pytorch.read(str(path), key)
