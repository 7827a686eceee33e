"""Directories as the Hugging Face hub has them: weights, perhaps in shards, and their configs."""

import json

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.weights.formats import hub_config
from asvit_jax.weights.formats.pytorch import pytorch
from asvit_jax.weights.formats.safetensors import safetensors
from asvit_jax.weights.stored import Stored

# In the order of preference.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


class Repository:
  """See `formats`."""

  expects = "a directory with model.safetensors or pytorch_model.bin"
  takes_key = True

  def recognizes(self, source):
    """A directory with weights under the hub's names, or the index of shards."""
    path = storage.path(source)
    if path.name in INDICES:
      return path.is_file()
    return path.is_dir() and any((path / name).is_file() for name in (*WEIGHTS, *INDICES))

  def read(self, source, key="", named=None):
    """See `formats`.

    Args:
      source: the directory, or an index.
      key: see `formats`.
      named: what the user calls it.
    """
    path, name = storage.path(source), f"weights {named or source}"
    index = path if path.name in INDICES else None
    directory = path.parent if index is not None else path
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


def shards(index, name):
  """The names of the files that an index lists.

  Raises:
    InputError: it is no index.
  """
  return sorted(set(_weight_map(index, name).values()))


def _weight_map(index, name):
  try:
    listed = json.loads(storage.read(index))["weight_map"]
    if not listed or not all("/" not in file for file in listed.values()):
      raise ValueError("no files listed")
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(
      f"{name}: {index.name} is not an index of shards ({error}): fetch it again"
    ) from error
  return listed


def _joined(index, name, key):
  listed, tensors = _weight_map(index, name), {}
  for file in shards(index, name):
    if not (index.parent / file).is_file():
      raise InputError(
        f"{name}: the shard {file} that {index.name} lists is missing: fetch it, too"
      )
    tensors |= _read(index.parent / file, "").tensors
  counted = {n for n in listed if not n.endswith(".num_batches_tracked")}
  if missing := sorted(counted - tensors.keys()):
    raise InputError(
      f"{name}: {len(missing)} tensors that {index.name} lists are in no shard, {missing[0]} among "
      "them: fetch the shards again"
    )
  return Stored(tensors, key=key)


def _read(path, key):
  if path.suffix == ".safetensors":
    return safetensors.read(str(path), key)
  return pytorch.read(str(path), key)
