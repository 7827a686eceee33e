"""Files of reference numbers: a network, a batch, and the results of the authors' code for them."""

import zipfile
import zlib

import numpy as np

from asvit_jax import vit
from asvit_jax.core import schema, storage
from asvit_jax.core.errors import InputError

_NUMBERS = (
  *("embed_dim", "num_heads", "depth", "mlp_ratio", "num_classes", "layer_norm_eps"),
  *("ratio_weight", "distill_weight", "keep_ratio", "temperature"),
)
_META = schema.table(
  {"kind": schema.text(100), "qkv_bias": schema.BOOLEAN, "optimizer": schema.table()}
  | {"prune_at": schema.array(schema.integer(0, 1000), most=1000), "skip_lam": schema.number()}
  | {name: schema.number() for name in _NUMBERS},
  required=("kind", "qkv_bias", "optimizer", "prune_at", *_NUMBERS),
)


def metadata(reference, path):
  """The hyper-parameters in a file, a dictionary; raises InputError if they are invalid."""
  return schema.loads(str(reference["meta"]), _META, f"{path}, its meta")


def architecture(meta, reference):
  """The `Architecture` of the network in a file; raises InputError for an unknown kind."""
  family = {"vit": {}, "lvvit": dict(stem="lv", aux_head=True, count_elementwise=True)}
  if meta["kind"] not in family:
    raise InputError(f"network kind {meta['kind']!r}: expected one of {', '.join(family)}")
  patch = reference["student/patch_embed.proj.weight"].shape[-1]
  return vit.Architecture(
    width=meta["embed_dim"],
    heads=meta["num_heads"],
    depth=meta["depth"],
    mlp_ratio=meta["mlp_ratio"],
    image_size=reference["images"].shape[-1],
    patch_size=2 * patch if meta["kind"] == "lvvit" else patch,  # the stem halves the image
    classes=meta["num_classes"],
    norm_epsilon=meta["layer_norm_eps"],
    qkv_bias=meta["qkv_bias"],
    residual_divisor=meta.get("skip_lam", 1.0),
    prune_before=tuple(meta["prune_at"]),
    **family[meta["kind"]],
  )


def read(path):
  """{name: array} of a file; raises InputError if it is missing or has another format."""
  path = storage.path(path)
  if not path.is_file():
    raise InputError(f"{path}: no such file; expected an .npz file of reference numbers")
  try:
    with storage.local(path) as copy, np.load(copy) as file:
      reference = {name: file[name] for name in file.files}
  except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise InputError(f"{path}: not a readable .npz file ({error})") from error
  if "meta" not in reference:
    raise InputError(f"{path}: no `meta` entry; expected an .npz file of reference numbers")
  return reference


def subset(arrays, prefix):
  """The arrays whose names start with `prefix`, keyed by the rest of their names."""
  return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
