"""Formats of weights. The first that recognizes a source reads it.

| source | read by |
|---|---|
| `hf:OWNER/NAME`, `hf:OWNER/NAME@REVISION` | huggingface_hub fetches a `repository` |
| a directory with `model.safetensors` or `pytorch_model.bin`, or shards | `repository` |
| the workdir of a run, also where one of these is beside its checkpoints | Orbax |
| `FILE.pth`, `.pth.tar`, `.pt`, `.bin`, `.ckpt` | PyTorch; a pickle of more is refused |
| `FILE.npz` | NumPy |
| any other file | safetensors |

A format is an object with

  expects: what it reads, in words, for the error where no format recognizes a source.
  recognizes(source): whether a path or a name is its own, by what can be seen from outside.
  read(source): `Stored`; raises InputError for what is not there, damaged, or needs a library.
  takes_key: True where `read` takes a second argument, which of several networks is asked for; it
    returns as `Stored.key` what of it is to be found among the names of the tensors. May be absent.
"""

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.parts import Table
from asvit_jax.weights import families
from asvit_jax.weights.formats import hub_config

FORMATS = Table(
  "weight format",
  "weights",
  {
    "hub": "asvit_jax.weights.formats.hub:hub",
    "repository": "asvit_jax.weights.formats.repository:repository",
    "workdir": "asvit_jax.weights.formats.workdir:workdir",
    "pytorch": "asvit_jax.weights.formats.pytorch:pytorch",
    "npz": "asvit_jax.weights.formats.npz:npz",
    "safetensors": "asvit_jax.weights.formats.safetensors:safetensors",
  },
)


def read(source, key="", step="", weights_of="", parts=(), form=None):
  """Reads weights of any format.

  Args:
    source: a file, a directory of the hub's layout, the workdir of a run, or `hf:OWNER/NAME` on the
      Hugging Face hub. Files and workdirs may be in a bucket; `~` is the home directory.
    key: where it holds several networks, such as averaged weights beside the last, which.
    step: of a run, which one, see `run.choice.check`.
    weights_of: of a run, which weights, see `run.choice.check`.
    parts: of a run, names of parts of one's own that it may name, see `core.parts.typed`.
    form: a name of `FORMATS`, where the user said what the source is; None to find it out.

  Returns:
    `Stored`, in timm's names.

  Raises:
    InputError: nothing there, a damaged file, an unknown format, a missing library, or a network
      with other blocks than ours; a step or weights of what is no run.
  """
  source = str(storage.path(source))
  names = tuple(FORMATS) if form is None else (form,)
  for name in names:
    form = FORMATS[name]
    if not form.recognizes(source):
      continue
    if name != "workdir" and (step or weights_of):
      raise InputError(
        f"weights {source}: step and weights_of choose among those of a run, and it is no workdir: "
        "leave them out"
      )
    if key and not getattr(form, "takes_key", False):
      raise InputError(
        f"weights {source}: there is one network in it, so there is none to choose by {key!r}: "
        "leave --weights-key or config.init_key out"
      )
    if name == "workdir":
      stored = form.read(source, step, weights_of, parts)
    else:
      stored = form.read(source, key) if getattr(form, "takes_key", False) else form.read(source)
    return families.in_timms_names(_with_config_beside(stored, source), f"weights {source}")
  expected = ", ".join(FORMATS[name].expects for name in names)
  raise InputError(f"weights {source}: no such file; expected one of: {expected}")


def _with_config_beside(stored, source):
  """With what a hub's config.json beside a file says, where the file itself says nothing."""
  path = storage.path(source)
  if stored.description or stored.facts or source.startswith("hf:") or not path.is_file():
    return stored
  return hub_config.applied(stored, path.parent, f"weights {source}")
