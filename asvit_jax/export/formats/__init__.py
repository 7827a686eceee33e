"""Export formats.

A format is a `base.Format`, an object with

  name: its name in the table below.
  needs: {library to import: package to install}, beyond this package's own dependencies.
  directory: what to call an artifact that is a directory, "a SavedModel"; None for a file.
  options: supported keywords of `write`: "tokens", whether programs also return the tokens, their
    positions and the sources of the patches; "opset", the version of the operators; "execution",
    the execution of the program for any number of images, "fixed" instead of "masked".
  executions: the executions that this option may name.
  write(network, path, batch_sizes, **options): writes a `Network` that computes in float32 to a
    path that does not exist; `batch_sizes` are those of the packed programs. Raises OSError or
    InputError.
  load(path): the `serving.Programs` of an artifact. Raises InputError if it is damaged, and always
    if the format holds no programs.
  least_versions(path): {package: oldest version that loads the artifact}, as far as known.
  verify(network, path): reads the artifact again, compares it with the network in memory, and
    returns the largest difference of logits. Raises InputError if they differ. If `write` was given
    an execution, `verify` gets it by the same keyword.

`base.ProgramFormat` implements `load` and `verify` for formats that hold programs; each of them
adds `write` and `read`.
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
