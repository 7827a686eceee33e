"""From the patches of a convolution to flat rows on a TPU: eight images a program.

A TPU's convolution leaves the images next to each other, (n, b, d): eight images are the eight rows
of a tile. A program brings the rows of each image together, after the tokens before the patches, by
reads of every eighth row.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from asvit_jax.sparsity.kernels.tpu_copies import tiled
from asvit_jax.sparsity.kernels.tpu_products import LANES

IMAGES = 8  # of a program


@functools.partial(jax.jit, static_argnames="interpret")
def embedded(patches, prefix, position, *, interpret=False):
  """Puts the tokens of images together, and adds their positions.

  Args:
    patches: (n, b, d) patches of a multiple of `IMAGES` images; d is a multiple of 64.
    prefix: (p, d) tokens before the patches, of the same type; p may be 0.
    position: (p + n, d) of the same type, to add.
    interpret: whether to interpret the kernel.

  Returns:
    (b · width, d) rows, p + n rounded up to a width that is a multiple of 8; rows between two
    images are undefined.
  """
  (n, b, d), p = patches.shape, len(prefix)
  width = tiled(p + n)
  first = jnp.repeat(prefix.astype(jnp.float32), IMAGES, axis=0)
  position = jnp.pad(position.astype(jnp.float32), ((0, width - p - n), (0, 0)))

  def of_columns(rows):
    return pl.BlockSpec((rows, LANES), lambda i, j: (0, j))

  firsts = [(first, of_columns(p * IMAGES))] if p else []
  arrays, specs = zip(*firsts, (position, of_columns(width)), strict=True)
  return pl.pallas_call(
    functools.partial(_embedded, tokens=p + n),
    grid=(b // IMAGES, pl.cdiv(d, LANES)),
    in_specs=[pl.BlockSpec((n, IMAGES, LANES), lambda i, j: (0, i, j)), *specs],
    out_specs=pl.BlockSpec((IMAGES * width, LANES), lambda i, j: (i, j)),
    out_shape=jax.ShapeDtypeStruct((b * width, d), patches.dtype),
    scratch_shapes=[pltpu.VMEM((width * IMAGES, LANES), jnp.float32)],
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
    name="embedded",
  )(patches, *arrays)


def _embedded(patches, *rest, tokens):
  *first, position, out, rows = rest
  begin = 0
  if first:
    begin = first[0].shape[0]
    rows[:begin] = first[0][...]
  rows[begin : tokens * IMAGES] = patches[...].astype(jnp.float32).reshape(-1, LANES)
  width = position.shape[0]
  for image in range(IMAGES):
    of_image = rows[pl.ds(image, width, stride=IMAGES), :] + position[...]
    out[image * width : (image + 1) * width] = of_image.astype(out.dtype)
