"""Tensors by name from the files in which weights are published.

| source | read by |
|---|---|
| `FILE.safetensors` | safetensors |
| `FILE.pth`, `.pth.tar`, `.pt`, `.bin` | PyTorch; a pickle of more than tensors is refused |
| `hf:OWNER/NAME` | `model.safetensors` of that repository, by huggingface_hub |

Checkpoints of training scripts wrap the parameters in a dictionary and name those of a parallel
model `module.…`; both are taken off.
"""

import argparse
import json
import pathlib
import pickle

import numpy as np
import safetensors
import safetensors.numpy

from asvit_jax.errors import InputError

_TORCH = (".pth", ".tar", ".pt", ".bin")
# Where training scripts put the parameters: DeiT's, LV-ViT's.
_WRAPPERS = ("model", "state_dict")
_HUB = "hf:"
# The authors' name of a stage's threshold.
THRESHOLD = "score_predictor.{}.keep_threshold"


def read(source):
  """The tensors of a file or of a repository on the hub.

  Args:
    source: path, or `hf:OWNER/NAME`.

  Returns:
    {name: array}, names as published, without `module.` and without the counters of batch norms.

  Raises:
    InputError: nothing there, a damaged file, an unknown format, a pickle with more than tensors
      in it, or a missing library.
  """
  if str(source).startswith(_HUB):
    return _clean(_read_safetensors(_download(str(source).removeprefix(_HUB)), source))
  path = pathlib.Path(source)
  if not path.is_file():
    raise InputError(
      f"weights {path}: no such file; expected a .safetensors file, a PyTorch checkpoint "
      f"({', '.join(_TORCH)}) or hf:OWNER/NAME"
    )
  if path.suffix in _TORCH:
    return _clean(_read_torch(path))
  return _clean(_read_safetensors(path, path))


def _read_safetensors(path, source):
  try:
    tensors = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as file:
      thresholds = json.loads((file.metadata() or {}).get("thresholds", "[]"))
    named = {THRESHOLD.format(i): np.float32(value) for i, value in enumerate(thresholds)}
    return tensors | named
  except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
    raise InputError(
      f"weights {source}: not a readable safetensors file ({error}); it may be truncated or of "
      "another format: fetch or export it again"
    ) from error


def _read_torch(path):
  try:
    import torch
  except ImportError as error:
    raise InputError(
      f"weights {path}: PyTorch reads this format and is not installed: `pip install torch`, or "
      "convert the file to .safetensors elsewhere"
    ) from error
  try:
    # Training scripts save their flags beside the tensors: a namespace of plain values.
    with torch.serialization.safe_globals([argparse.Namespace]):
      content = torch.load(path, map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    raise InputError(
      f"weights {path}: refused, as it asks to run code or is damaged; only plain tensors are read "
      f"({str(error).splitlines()[0][:200]})"
    ) from error
  except Exception as error:  # a truncated file ends in any error of the unpickler
    raise InputError(
      f"weights {path}: not a readable PyTorch checkpoint ({str(error)[:200]}); it may be "
      "truncated: fetch it again"
    ) from error
  for wrapper in _WRAPPERS:
    if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
      content = content[wrapper]
  if not isinstance(content, dict) or not content:
    raise InputError(f"weights {path}: expected a dictionary of tensors, found {type(content)}")
  odd = [str(k) for k, v in content.items() if not isinstance(v, torch.Tensor)]
  if odd:
    raise InputError(
      f"weights {path}: entries that are not tensors: {', '.join(odd[:5])}; expected a dictionary "
      f"of tensors, by itself or under {' or '.join(_WRAPPERS)}"
    )
  return {name: tensor.detach().float().numpy() for name, tensor in content.items()}


def _download(repository):
  try:
    import huggingface_hub
  except ImportError as error:
    raise InputError(
      f"weights {_HUB}{repository}: huggingface_hub fetches it and is not installed: "
      "`pip install huggingface_hub`"
    ) from error
  try:
    return huggingface_hub.hf_hub_download(repository, "model.safetensors")
  except (OSError, ValueError) as error:  # what the hub's and the network's errors derive from
    raise InputError(
      f"weights {_HUB}{repository}: cannot be fetched ({str(error).strip()[:300]}); check the name "
      "and the network, or download model.safetensors and give its path"
    ) from error


def _clean(tensors):
  named = {name.removeprefix("module."): np.asarray(value) for name, value in tensors.items()}
  return {k: v for k, v in named.items() if not k.endswith(".num_batches_tracked")}
