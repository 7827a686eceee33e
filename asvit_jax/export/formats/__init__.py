"""Formats that a network is exported in.

A format is a `base.Format`, an object with

  name: as in the table below.
  needs: {library to import: package to install}, beyond what this package needs anyway.
  directory: what an artifact is called, "a SavedModel", where it is a directory; None for a file.
  options: keywords of `write` that can be asked for: "tokens", whether programs return the tokens
    and their positions, too; "opset", the version of the operators; "execution", which the program
    for any number of images has, "fixed" instead of "masked".
  write(network, path, batch_sizes, **options): writes a `Network` that computes in float32 to a
    path where nothing is; `batch_sizes` are those of its packed programs. Raises OSError or
    InputError.
  load(path): the `serving.Programs` of an artifact. Raises InputError for one that is damaged, and
    for every one of a format that holds no programs.
  least_versions(path): {package: the least version that loads what was written}, as far as known.
  verify(network, path): holds what was written against the network in memory, reading it again;
    returns the largest difference between logits. Raises InputError where it is not the same. Where
    `write` was given an execution, this gets it, too, by that keyword.

`base.ProgramFormat` has load and verify of those that hold programs: each adds write, and read.
"""

from asvit_jax.core.parts import Table

FORMATS = Table(
  "export format",
  "--format",
  {  # by place: `export.py --help` lists the names without the second that importing JAX takes
    "safetensors": "asvit_jax.export.formats.safetensors:safetensors",
    "stablehlo": "asvit_jax.export.formats.stablehlo:stablehlo",
    "savedmodel": "asvit_jax.export.formats.savedmodel:savedmodel",
    "onnx": "asvit_jax.export.formats.onnx:onnx",
    "tflite": "asvit_jax.export.formats.tflite:tflite",
  },
)
