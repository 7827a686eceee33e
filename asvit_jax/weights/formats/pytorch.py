"""PyTorch checkpoints: DeiT's, LV-ViT's, the authors', Lightning's; tensors only."""

import argparse
import collections
import pickle
import re

import numpy as np

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.weights.stored import Stored, cleaned

_SUFFIXES = (".pth", ".tar", ".pt", ".bin", ".ckpt")
# Where training scripts put the parameters, what is averaged after what is not.
_WRAPPERS = (
  *("model", "state_dict", "model_state_dict", "network"),
  *("model_ema", "state_dict_ema", "ema", "ema_state_dict", "teacher", "student"),
)
# Classes that hold nothing but values, which Lightning saves beside the tensors; plain dictionaries
# are filled in their place, so nothing of theirs runs.
_DICTIONARIES = tuple(
  f"{module}.AttributeDict"
  for module in (
    *("lightning.fabric.utilities.data", "lightning_fabric.utilities.data"),
    *("lightning.pytorch.utilities.parsing", "pytorch_lightning.utilities.parsing"),
  )
)
_PATHS = ("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath")
_CORES = ("core", "_core")  # of NumPy 1 and 2
_TERMINAL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class PyTorch:
  """See `formats`."""

  expects = f"a PyTorch checkpoint ({', '.join(_SUFFIXES)})"
  takes_key = True

  def recognizes(self, source):
    """A file of one of PyTorch's suffixes."""
    return storage.path(source).suffix in _SUFFIXES and storage.path(source).is_file()

  def read(self, source, key=""):
    """See `formats`; a pickle that asks for more than tensors is refused."""
    try:
      import torch
    except ImportError as error:
      raise InputError(
        f"weights {source}: PyTorch reads this format and is not installed: `pip install torch`, "
        "or convert the file to .safetensors elsewhere"
      ) from error
    content, key = _chosen(_loaded(torch, source), source, key)
    if not isinstance(content, dict) or not content:
      what = _type(content) if not isinstance(content, dict) else "an empty dictionary"
      raise InputError(f"weights {source}: expected a dictionary of tensors, found {what}")
    odd = {str(k): _type(v) for k, v in content.items() if not isinstance(v, torch.Tensor)}
    if odd:
      listed = ", ".join(f"{name} ({kind})" for name, kind in list(odd.items())[:5])
      raise InputError(
        f"weights {source}: entries that are not tensors: {listed}; expected a dictionary of "
        f"tensors, by itself or under {' or '.join(_WRAPPERS)}"
      )
    tensors = {str(k): tensor.detach().float().numpy() for k, tensor in content.items()}
    return Stored(cleaned(tensors), key=key)


pytorch = PyTorch()


def _loaded(torch, source):
  """What a file holds, of plain values and tensors."""
  # Training scripts save their flags and scores beside the tensors: values, as plain as these.
  allowed = [
    argparse.Namespace,
    *((collections.OrderedDict, name) for name in _DICTIONARIES),
    *((_tuple, name) for name in _PATHS),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in _CORES),
    *(np.dtype, *{type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")}),
  ]
  try:
    with torch.serialization.safe_globals(allowed), storage.local(source) as file:
      return torch.load(file, map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    said = _plain(error)
    _, _, reason = said.rpartition("WeightsUnpickler error: ")
    if asked := re.search(r"GLOBAL (\w+(?:\.\w+)+)", reason):
      raise InputError(
        f"weights {source}: refused, as it asks to run code: it holds a {asked[1]}, "
        "and only plain tensors are read; where you trust it, load it with PyTorch and save its "
        "state_dict()"
      ) from error
    raise InputError(
      f"weights {source}: refused, as it asks to run code or is damaged; only plain tensors are "
      f"read ({reason[:200]})"
    ) from error
  except Exception as error:  # a truncated file ends in any error of the unpickler
    raise InputError(
      f"weights {source}: not a readable PyTorch checkpoint ({_plain(error)[:200]}); it may be "
      "truncated: fetch it again"
    ) from error


def _chosen(content, source, key):
  """The dictionary of tensors asked for, and what of the key is to be found in its names."""
  while isinstance(content, dict):
    there = [name for name in _WRAPPERS if isinstance(content.get(name), dict) and content[name]]
    first, _, rest = key.partition(".")
    if first and isinstance(content.get(first), dict):
      content, key = content[first], rest
    elif there and first and not any(k.startswith(first) for w in there for k in content[w]):
      raise InputError(f"weights {source}: no {key!r} in it: choose from {', '.join(there)}")
    elif there:
      others = ", ".join(there[1:])
      if others:
        log(f"weights {source}: taken is {there[0]!r}; it also holds {others} (--weights-key)")
      content = content[there[0]]
    else:
      return content, key
  return content, key


def _tuple(*values):
  return values


def _plain(error):
  """An error in a line, without what colours terminals."""
  return " ".join(_TERMINAL.sub("", str(error)).split()) or type(error).__name__


def _type(value):
  kind = type(value)
  return (
    kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
  )
