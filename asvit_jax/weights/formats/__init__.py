"""Formats of weights. The first that recognizes a source reads it.

| source | read by |
|---|---|
| `hf:OWNER/NAME` | `model.safetensors` of that repository, by huggingface_hub |
| the workdir of a run | Orbax |
| `FILE.pth`, `.pth.tar`, `.pt`, `.bin` | PyTorch; a pickle of more than tensors is refused |
| any other file | safetensors |

A format is an object with

  expects: what it reads, in words, for the error where no format recognizes a source.
  recognizes(source): whether a path or a name is its own, by what can be seen from outside.
  read(source): `Stored`; raises InputError for what is not there, damaged, or needs a library.
"""

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.parts import Table

FORMATS = Table(
  "weight format",
  "weights",
  {
    "hub": "asvit_jax.weights.formats.hub:hub",
    "workdir": "asvit_jax.weights.formats.workdir:workdir",
    "pytorch": "asvit_jax.weights.formats.pytorch:pytorch",
    "safetensors": "asvit_jax.weights.formats.safetensors:safetensors",
  },
)


def read(source, step="", weights_of=""):
  """Reads weights of any format.

  Args:
    source: a file, the workdir of a run, or `hf:OWNER/NAME` on the Hugging Face hub. Files and
      workdirs may be in a bucket; `~` is the home directory.
    step: of a run, which one, see `run.choice.check`.
    weights_of: of a run, which weights, see `run.choice.check`.

  Returns:
    `Stored`.

  Raises:
    InputError: nothing there, a damaged file, an unknown format, or a missing library; a step or
      weights of what is no run.
  """
  source = str(storage.path(source))
  for name in FORMATS:
    if not FORMATS[name].recognizes(source):
      continue
    if name == "workdir":
      return FORMATS[name].read(source, step, weights_of)
    if step or weights_of:
      raise InputError(
        f"weights {source}: step and weights_of choose among those of a run, and it is no workdir: "
        "leave them out"
      )
    return FORMATS[name].read(source)
  expected = ", ".join(FORMATS[name].expects for name in FORMATS)
  raise InputError(f"weights {source}: no such file; expected one of: {expected}")
