"""The StableHLO format, XLA's portable form of programs, run by jax alone on CPU, CUDA and TPU."""

import functools
import io
import re
import zipfile
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.export import archives
from asvit_jax.export.formats.base import ProgramFormat
from asvit_jax.export.programs import PLATFORMS, batch_size, flat_params, names_among, programs

_WEIGHTS, _SUFFIX = "weights.npz", ".stablehlo"
# {version of StableHLO: oldest jax that ran it in a test}; 1.15 is the version of jax 0.10.2.
_READERS = {"1.15": "0.8.3"}
# Custom calls that a program may contain, such as checks of shapes and placement of arrays. Other
# calls refer to functions of the process, such as Python callbacks.
_CALLS = re.compile(
  r"shape_assertion|(stablehlo|mhlo|chlo)\.\w+|\w*Sharding|SPMD\w+|annotate_device_placement"
  r"|AllocateBuffer|ApproxTopK|TopK|cu_threefry2x32_ffi"
)
_CALL = re.compile(r"custom_call\W+(?:call_target_name\W+)?([\w.$]+)")


class StableHLO(ProgramFormat):
  """StableHLO: packed at given batch sizes and masked at any, or fixed at any; see `formats`.

  An artifact is a zip archive of `weights.npz` and one `NAME.stablehlo` per program.
  """

  name = "stablehlo"
  options: ClassVar = ("tokens", "execution")

  def write(self, network, path, batch_sizes, tokens=False, execution=None):
    """Writes a `Network` to a path, see `formats`."""
    from jax import export  # needs flatbuffers, which jax does not declare

    flat, shape = flat_params(network), network.arch.image_shape
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), flat)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
      buffer = io.BytesIO()
      np.savez(buffer, **flat)
      archive.writestr(_WEIGHTS, buffer.getvalue())
      for name, (program, count) in programs(network, batch_sizes, tokens, execution).items():
        batch = count or export.symbolic_shape("b")[0]
        images = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
        exported = export.export(jax.jit(program), platforms=PLATFORMS)(specs, images)
        archive.writestr(name + _SUFFIX, exported.serialize())

  def least_versions(self, path):
    """The oldest jax that reads the file's StableHLO version; this jax if unknown."""
    with zipfile.ZipFile(path) as archive:
      program = next(name for name in archive.namelist() if name.endswith(_SUFFIX))
      version = re.search(rb"StableHLO_v(\d+\.\d+)", archive.read(program))
    return {"jax": _READERS.get(version and version[1].decode(), jax.__version__)}

  def read(self, path):
    """Reads the programs of an artifact, see `ProgramFormat`."""
    from jax import export

    what, size = f"artifact {path}", path.stat().st_size
    with archives.opened(path, what) as archive:
      weights = archives.arrays(archives.read(archive, _WEIGHTS), f"{what}, {_WEIGHTS}", size)
      exported = {
        name.removesuffix(_SUFFIX): export.deserialize(bytearray(archives.read(archive, name)))
        for name in archive.namelist()
        if name.endswith(_SUFFIX)
      }
    returned = {name: _returned(program, weights) for name, program in exported.items()}
    weights = jax.device_put(weights)

    def run(program, images):
      outputs = program(weights, images)
      return [outputs[name] for name in names_among(outputs)]

    programs = {}
    for name, program in exported.items():
      programs[batch_size(name)] = functools.partial(run, jax.jit(program.call))
      programs[batch_size(name)].shapes = returned[name]
    return programs


stablehlo = StableHLO()


def _returned(program, weights):
  """{name of an output: its shape} of an exported program.

  Raises:
    InputError: the program expects other weights, or calls functions of this process.
  """
  for target in set(_CALL.findall(program.mlir_module())):
    if not _CALLS.fullmatch(target):
      raise InputError(f"its programs call {target}, which is not part of StableHLO: do not run it")
  (taken, _), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
  ours = {name: (value.shape, value.dtype) for name, value in weights.items()}
  if {name: (value.shape, value.dtype) for name, value in taken.items()} != ours:
    raise InputError("its programs are for other weights than those in it: export it again")
  outputs = jax.tree.unflatten(program.out_tree, program.out_avals)
  # Dimensions that are unknown until the call are symbols, not numbers.
  return {name: tuple(value.shape) for name, value in outputs.items()}
