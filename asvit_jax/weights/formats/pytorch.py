"""PyTorch checkpoints: DeiT's, LV-ViT's, the authors', Lightning's; tensors only."""

import argparse
import collections
import contextlib
import pickle
import re
import zipfile

import numpy as np

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line
from asvit_jax.core.progress import log
from asvit_jax.weights import checks
from asvit_jax.weights.formats import contents, zipped
from asvit_jax.weights.formats.safetensors import safetensors
from asvit_jax.weights.stored import Stored, cleaned

_SUFFIXES = (".pth", ".tar", ".pt", ".bin", ".ckpt")
# Keys under which training scripts store parameters; averaged weights come last.
_WRAPPERS = (
  *("model", "state_dict", "model_state_dict", "network"),
  *("model_ema", "state_dict_ema", "ema", "ema_state_dict", "teacher", "student"),
)
# Lightning's classes for plain values beside the tensors; dictionaries take their place, so that
# none of their code runs.
_DICTIONARIES = tuple(
  f"{module}.AttributeDict"
  for module in (
    *("lightning.fabric.utilities.data", "lightning_fabric.utilities.data"),
    *("lightning.pytorch.utilities.parsing", "pytorch_lightning.utilities.parsing"),
  )
)
_PATHS = ("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath")
_CORES = ("core", "_core")  # of NumPy 1 and 2
# Types of tensors that are read; integers are refused later if they are used.
_TYPES = tuple(
  f"torch.{name}"
  for name in (
    *("float32", "float64", "float16", "bfloat16", "complex64", "complex128", "bool"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
  )
)
_TERMINAL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class PyTorch:
  """The format of PyTorch checkpoints; see `formats`."""

  expects = f"a PyTorch checkpoint ({', '.join(_SUFFIXES)})"
  takes_key = True

  def recognizes(self, source):
    """Whether the source is a file with one of PyTorch's suffixes."""
    return storage.path(source).suffix.lower() in _SUFFIXES and storage.path(source).is_file()

  def read(self, source, key=""):
    """The `Stored` of a checkpoint; pickles of anything but tensors are refused; see `formats`.

    A safetensors file with a PyTorch suffix is read as safetensors.
    """
    with _local(source) as (path, is_safetensors):
      if not is_safetensors:
        return _read(path, source, key)
    log(f"weights {source}: read as safetensors, despite its name")
    return safetensors.read(source, key)


pytorch = PyTorch()


@contextlib.contextmanager
def _local(source):
  """A local path to the source's content, see `storage.local`, and whether it is safetensors."""
  with contextlib.ExitStack() as stack:
    try:
      path = stack.enter_context(storage.local(source))
      contents.check_no_pointer(path, f"weights {source}")
      is_safetensors = contents.is_safetensors(path)
    except OSError as error:
      raise InputError(f"weights {source}: cannot be read ({error}): fetch it again") from error
    yield path, is_safetensors


def _read(path, source, key):
  """`Stored` of the checkpoint at a path on a disk; see `PyTorch.read`."""
  try:
    import torch
  except ImportError as error:
    raise InputError(
      f"weights {source}: this format needs PyTorch, which is not installed: `pip install torch`, "
      "or convert the file to .safetensors elsewhere"
    ) from error
  content, key = _chosen(_loaded(torch, path, source), source, key)
  if not isinstance(content, dict) or not content:
    what = _type(content) if not isinstance(content, dict) else "an empty dictionary"
    raise InputError(f"weights {source}: expected a dictionary of tensors, found {what}")
  odd = {_name(k): _type(v) for k, v in content.items() if not isinstance(v, torch.Tensor)}
  odd |= {_name(k): f"named by a {_type(k)}" for k in content if not isinstance(k, str)}
  if odd:
    listed = ", ".join(f"{name} ({kind})" for name, kind in list(odd.items())[:5])
    raise InputError(
      f"weights {source}: entries that are not tensors: {listed}; expected a dictionary of "
      f"tensors, directly or under {' or '.join(_WRAPPERS)}"
    )
  _check_tensors(torch, content, path, f"weights {source}")
  return Stored(cleaned({k: _array(tensor) for k, tensor in content.items()}), key=key)


def _loaded(torch, path, source):
  """The content of a file, limited to plain values and tensors."""
  _check_container(path, source)
  # Training scripts save flags and scores beside the tensors: plain values of these types.
  allowed = [
    argparse.Namespace,
    *((collections.OrderedDict, name) for name in _DICTIONARIES),
    *((_tuple, name) for name in _PATHS),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in _CORES),
    *(np.dtype, *{type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")}),
  ]
  try:
    with torch.serialization.safe_globals(allowed):
      return torch.load(path, map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    said = _plain(error)
    _, _, reason = said.rpartition("WeightsUnpickler error: ")
    if asked := re.search(r"GLOBAL (\w+(?:\.\w+)+)", reason):
      raise InputError(
        f"weights {source}: refused, as it asks to run code: it holds a {asked[1]}, "
        "and only plain tensors are read; if you trust it, load it with PyTorch and save its "
        "state_dict()"
      ) from error
    raise InputError(
      f"weights {source}: refused, as it asks to run code or is damaged; only plain tensors are "
      f"read ({reason[:200]})"
    ) from error
  except Exception as error:  # a truncated file can raise any error of the unpickler
    raise InputError(
      f"weights {source}: not a readable PyTorch checkpoint ({_plain(error)[:200]}); it may be "
      "truncated: fetch it again"
    ) from error


def _check_container(path, source):
  """Raises InputError for a zip archive that would unpack to far more than its own size."""
  try:
    with path.open("rb") as file:
      zipped_up = file.read(4) == b"PK\x03\x04"
    if zipped_up:  # otherwise the format of PyTorch before 1.6
      zipped.members(path, f"weights {source}")
  except (OSError, zipfile.BadZipFile) as error:
    raise InputError(
      f"weights {source}: not a readable PyTorch checkpoint ({_plain(error)[:200]}); it may be "
      "truncated: fetch it again"
    ) from error


def _check_tensors(torch, content, path, source):
  """Raises InputError for tensors larger than their data in the file, or without numbers."""
  for name, tensor in content.items():
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or str(tensor.dtype) not in _TYPES:
      raise InputError(
        f"{source}: tensor {_name(name)} is of type {tensor.dtype} on {tensor.device}, "
        f"{tensor.layout}: give the weights in float32, float16 or bfloat16"
      )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
      raise InputError(
        f"{source}: tensor {_name(name)}, of shape {tuple(tensor.shape)}, is larger than its data "
        "in the file: save it with .contiguous()"
      )
  kinds = {k: str(t.dtype).removeprefix("torch.") for k, t in content.items()}
  checks.check_listed({k: (tuple(t.shape), kinds[k]) for k, t in content.items()}, source)
  checks.check_unpacked(4 * sum(t.numel() for t in content.values()), path, source)


def _array(tensor):
  """A tensor as a NumPy array, floating point as float32."""
  tensor = tensor.detach()
  return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _chosen(content, source, key):
  """The selected dictionary of tensors, and the part of the key left to resolve by names."""
  seen = []  # a pickled dictionary may contain itself
  while isinstance(content, dict) and not any(content is other for other in seen):
    seen.append(content)
    there = [name for name in _WRAPPERS if isinstance(content.get(name), dict) and content[name]]
    first, _, rest = key.partition(".")
    if first and isinstance(content.get(first), dict):
      content, key = content[first], rest
    elif there and first and not any(first in str(k).split(".") for w in there for k in content[w]):
      raise InputError(f"weights {source}: no {key!r} in it: choose from {', '.join(there)}")
    elif there:
      others = ", ".join(there[1:])
      if others:
        log(f"weights {source}: using {there[0]!r}; the file also has {others} (--weights-key)")
      content = content[there[0]]
    else:
      return content, key
  return content, key


def _tuple(*values):
  return values


def _plain(error):
  """An error on one line, without terminal colour codes."""
  return " ".join(_TERMINAL.sub("", str(error)).split()) or type(error).__name__


def _name(key):
  return on_a_line(key[:60]) if isinstance(key, str) else _type(key)


def _type(value):
  kind = type(value)
  return (
    kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
  )
