"""Formats of weights. The first that recognizes a source reads it.

| source | read by |
|---|---|
| `hf:OWNER/NAME`, `hf:OWNER/NAME@REVISION` | huggingface_hub fetches a `repository` |
| a directory with `model.safetensors` or `pytorch_model.bin`, or shards | `repository` |
| the workdir of a run, even if one of these is beside its checkpoints | Orbax |
| `FILE.pth`, `.pth.tar`, `.pt`, `.bin`, `.ckpt` | PyTorch; pickles may hold only tensors |
| `FILE.npz` | NumPy |
| any other file | safetensors |

A format is an object with

  expects: description of the sources that it reads, for the error if no format recognizes one.
  recognizes(source): whether the format reads a path or a name; decided without opening the file.
  read(source): returns `Stored`; raises InputError if the source is missing or damaged, or a
    library is missing.
  takes_key: True if `read` takes a second argument, the key of one of several networks. The part of
    it that is left to resolve by the names of the tensors is `Stored.key`. Optional.
"""

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.parts import Table
from asvit_jax.weights import families
from asvit_jax.weights.formats import (
  hub,
  hub_config,
  npz,
  pytorch,
  repository,
  safetensors,
  workdir,
)

FORMATS = Table(
  "weight format",
  "weights",
  {
    "hub": hub.hub,
    "repository": repository.repository,
    "workdir": workdir.workdir,
    "pytorch": pytorch.pytorch,
    "npz": npz.npz,
    "safetensors": safetensors.safetensors,
  },
)


def read(source, key="", step="", weights_of="", parts=(), form=None):
  """Reads weights of any format.

  Args:
    source: a file, a directory of the hub's layout, the workdir of a run, or `hf:OWNER/NAME` on the
      Hugging Face hub. Files and workdirs may be in a bucket; `~` is the home directory.
    key: selects one of several networks in the source, such as the averaged weights.
    step: step of a run, see `run.choice.check`.
    weights_of: weights of a run, see `run.choice.check`.
    parts: names of your own parts that a run may name, see `core.parts.typed`.
    form: a name of `FORMATS`, if the user gave the source's format; None to detect it.

  Returns:
    `Stored`, in timm's names.

  Raises:
    InputError: a missing source, a damaged file, an unknown format, a missing library, a network
      with unsupported blocks, or a step or weights_of for a source that is not a run.
  """
  source = str(storage.path(source))
  names = tuple(FORMATS) if form is None else (form,)
  for name in names:
    form = FORMATS[name]
    if not form.recognizes(source):
      continue
    if name != "workdir" and (step or weights_of):
      raise InputError(
        f"weights {source}: step and weights_of choose among the checkpoints of a run, but it is "
        "not a workdir: leave them out"
      )
    if key and not getattr(form, "takes_key", False):
      raise InputError(
        f"weights {source}: it holds a single network, so {key!r} cannot choose one: leave "
        "--weights-key or config.init_key out"
      )
    if name == "workdir":
      stored = form.read(source, step, weights_of, parts)
    else:
      stored = form.read(source, key) if getattr(form, "takes_key", False) else form.read(source)
    return families.in_timms_names(_with_config_beside(stored, source), f"weights {source}")
  expected = ", ".join(FORMATS[name].expects for name in names)
  raise InputError(f"weights {source}: no such file; expected one of: {expected}")


def _with_config_beside(stored, source):
  """`Stored` with the values of a config.json beside the file, if the file has no description."""
  path = storage.path(source)
  if stored.description or stored.facts or source.startswith("hf:") or not path.is_file():
    return stored
  return hub_config.applied(stored, path.parent, f"weights {source}")
