"""PyTorch checkpoints: DeiT's, LV-ViT's, the authors'; tensors only."""

import argparse
import pickle

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.weights.stored import Stored, cleaned

_SUFFIXES = (".pth", ".tar", ".pt", ".bin")
# Where training scripts put the parameters: DeiT's, LV-ViT's.
_WRAPPERS = ("model", "state_dict")


class PyTorch:
  """See `formats`."""

  expects = f"a PyTorch checkpoint ({', '.join(_SUFFIXES)})"

  def recognizes(self, source):
    """A file of one of PyTorch's suffixes."""
    return storage.path(source).suffix in _SUFFIXES and storage.path(source).is_file()

  def read(self, source):
    """See `formats`; a pickle that asks for more than tensors is refused."""
    try:
      import torch
    except ImportError as error:
      raise InputError(
        f"weights {source}: PyTorch reads this format and is not installed: `pip install torch`, "
        "or convert the file to .safetensors elsewhere"
      ) from error
    try:
      # Training scripts save their flags beside the tensors: a namespace of plain values.
      with torch.serialization.safe_globals([argparse.Namespace]), storage.local(source) as file:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
      raise InputError(
        f"weights {source}: refused, as it asks to run code or is damaged; only plain tensors are "
        f"read ({str(error).splitlines()[0][:200]})"
      ) from error
    except Exception as error:  # a truncated file ends in any error of the unpickler
      raise InputError(
        f"weights {source}: not a readable PyTorch checkpoint ({str(error)[:200]}); it may be "
        "truncated: fetch it again"
      ) from error
    for wrapper in _WRAPPERS:
      if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
        content = content[wrapper]
    if not isinstance(content, dict) or not content:
      raise InputError(f"weights {source}: expected a dictionary of tensors, found {type(content)}")
    odd = [str(k) for k, v in content.items() if not isinstance(v, torch.Tensor)]
    if odd:
      raise InputError(
        f"weights {source}: entries that are not tensors: {', '.join(odd[:5])}; expected a "
        f"dictionary of tensors, by itself or under {' or '.join(_WRAPPERS)}"
      )
    return Stored(cleaned({k: tensor.detach().float().numpy() for k, tensor in content.items()}))


pytorch = PyTorch()
