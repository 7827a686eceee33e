"""Copies of the rows of images on a TPU, whose number only the device knows."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

TILE = 8  # rows that copies, and where they start, are multiples of
MOST = 256  # images of a group, see `group_of`


# Traced once for all stages.
@functools.partial(jax.jit, static_argnames=("columns", "width", "interpret"))
def windows(rows, start, count, *, width, columns=None, interpret=False):
  """Copies the rows of each image into a window of its own.

  Args:
    rows: (length, c) rows.
    start: (b,) int32, the first row of each image, a multiple of 8.
    count: (b,) int32, the number of its tokens.
    width: rows of a window; no count is above it.
    columns: (first, number) of the columns to copy, multiples of 128; all by default.
    interpret: whether to interpret the kernel.

  Returns:
    (b, width, columns), 0 beyond the tokens that there are.
  """
  b, (first, channels) = len(start), columns or (0, rows.shape[1])
  return pl.pallas_call(
    functools.partial(_windows, images=b, columns=pl.ds(first, channels), interpret=interpret),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2,
      grid=(b,),
      in_specs=[pl.BlockSpec(memory_space=pl.ANY)],
      out_specs=pl.BlockSpec((1, width, channels), lambda i, *_: (i, 0, 0)),
      scratch_shapes=[
        pltpu.VMEM((2, tiled(width), channels), rows.dtype),
        pltpu.SemaphoreType.DMA((2,)),
      ],
    ),
    out_shape=jax.ShapeDtypeStruct((b, width, channels), rows.dtype),
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
  )(start, count, rows)


@functools.partial(jax.jit, static_argnames="interpret")
def padded(windows, *, interpret=False):
  """(b, n, c) windows -> (b · width, c) rows, n rounded up to a width that is a multiple of 8.

  Rows between two windows are undefined.
  """
  b, n, channels = windows.shape
  width = tiled(n)

  def copy(window, out):
    out[0, :n] = window[0]

  out = pl.pallas_call(
    copy,
    grid=(b,),
    in_specs=[pl.BlockSpec((1, n, channels), lambda i: (i, 0, 0))],
    out_specs=pl.BlockSpec((1, width, channels), lambda i: (i, 0, 0)),
    out_shape=jax.ShapeDtypeStruct((b, width, channels), windows.dtype),
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
    name="padded",
  )(windows)
  return out.reshape(b * width, channels)


def _windows(start, count, rows, out, window, arrived, *, images, columns, interpret):
  i = pl.program_id(0)
  prefetch(i, images, reader(rows.at[:, columns], start, count, 0, window, arrived, interpret))
  there = window[slot_of(i)][: out.shape[1]]
  row = lax.broadcasted_iota(jnp.int32, there.shape, 0)
  out[0] = jnp.where(row < count[i], there, jnp.zeros_like(there))


def prefetch(i, images, reads):
  """Waits for what program `i` of `images` reads, after starting the copies for the next one.

  Args:
    i: index of the program.
    images: number of programs, on this core.
    reads: function of an index and `start_copy` or `wait_for_copy`, which has two buffers, for even
      and odd indices.
  """
  # A loop, of two rounds for the first program and else of one: half as much code as conditions.
  first = jnp.where(i == 0, 0, i + 1)
  lax.fori_loop(first, jnp.minimum(i + 2, images), lambda j, _: reads(j, start_copy), None)
  reads(i, wait_for_copy)


def write_behind(i, images, writes, run):
  """Runs program `i` of `images`, whose result is copied while the next one runs.

  Args:
    i: index of the program.
    images: number of programs, on this core.
    writes: as `reads` of `prefetch`, for the copies of the result.
    run: function that computes the result.
  """

  @pl.when(i >= 2)
  def _():
    writes(i - 2, wait_for_copy)

  run()
  writes(i, start_copy)

  @pl.when(i == images - 1)
  def _():
    @pl.when(i > 0)
    def _():
      writes(i - 1, wait_for_copy)

    writes(i, wait_for_copy)


def switch(rows, widths, run):
  """Calls a function with the smallest of some static widths that holds `rows`."""
  below = 0
  for keys in widths:

    @pl.when((rows > below) & (rows <= keys))
    def _(keys=keys):
      run(keys)

    below = keys


def group_of(b):
  """The number of images of a group, whose numbers are in the vector memory together.

  There are two groups at least for more than 8 images, as some chips have two cores.
  """
  return min(b, tiled(pl.cdiv(b, 2)), MOST)


def by_group(images, width):
  """The block of a (b, width) array that has a row for each image of a group."""
  return pl.BlockSpec((images, width), lambda group, *_: (group, 0))


def image_of_group(images, all_images):
  """Which image a program is for.

  Args:
    images: number of images of a group, see `group_of`.
    all_images: number of all images.

  Returns:
    Index of the image in its group; index of the first image of the group; and the number of images
    of this group, which is smaller in the last one.
  """
  begin = pl.program_id(0) * images
  return pl.program_id(1), begin, jnp.minimum(images, all_images - begin)


def reader(source, start, count, begin, rows, arrived, interpret):
  """The `reads` of `prefetch` that copies the rows of a group's images.

  Args:
    source: reference (length, c) of the rows of all images.
    start: reference (b,), the first row of each image.
    count: reference (b,), the number of its tokens.
    begin: index of the first image of the group.
    rows: reference (2, width, c), the buffers.
    arrived: reference of two semaphores.
    interpret: see `copy_rows`.
  """

  def reads(i, act):
    first, number, slot = start[begin + i], tiled(count[begin + i]), slot_of(i)
    copy_rows(source, first, rows.at[slot], 0, number, arrived.at[slot], act, interpret)

  return reads


def writer(rows, out, start, count, begin, left, interpret):
  """The `writes` of `write_behind` from buffers to the rows of all images; see `reader`."""

  def writes(i, act):
    first, number, slot = start[begin + i], tiled(count[begin + i]), slot_of(i)
    copy_rows(rows.at[slot], 0, out, first, number, left.at[slot], act, interpret)

  return writes


def row_of(i):
  """The index of the row of image i of a group in a block of `by_group`."""
  return pl.ds(i, 1), slice(None)


def slot_of(i):
  """Which of two buffers program `i` uses."""
  return i & 1  # `rem` also computes the sign


def tiled(count):
  """A number of rows, rounded up to a multiple of `TILE`."""
  return (count + TILE - 1) & -TILE


def start_copy(copy):
  """Starts a copy."""
  copy.start()


def wait_for_copy(copy):
  """Waits for a copy."""
  copy.wait()


def copy_rows(source, source_row, target, target_row, rows, semaphore, act, interpret):
  """Starts or waits for the copy of rows.

  Args:
    source: reference (…, c).
    source_row: the first row to copy, a multiple of `TILE`.
    target: reference (…, c).
    target_row: the row to copy it to, a multiple of `TILE`.
    rows: number of rows, a multiple of `TILE`, at least that.
    semaphore: reference of a semaphore.
    act: `start_copy` or `wait_for_copy`.
    interpret: whether the kernel is interpreted, see `attend` and others.
  """

  def copy(done, size):
    pieces = (
      ref.at[pl.ds(pl.multiple_of(row + done, TILE), size)]
      for ref, row in ((source, source_row), (target, target_row))
    )
    act(pltpu.make_async_copy(*pieces, semaphore))

  if interpret is not True:
    copy(0, pl.multiple_of(rows, TILE))
    return
  # This interpreter copies no number of rows that only the device knows: pieces of powers of two.
  size = TILE
  while size <= min(source.shape[0], target.shape[0]):
    pl.when((rows & size) > 0)(functools.partial(copy, rows & -(2 * size), size))
    size *= 2
