"""How long a program would take on a chip at its peak, an estimate: nothing was run.

A program that keeps the units for matrix products busy all the time takes its FLOPs ÷ their peak;
one that keeps the memory busy all the time its bytes ÷ the bandwidth. The estimate is the longer of
the two. It is as good as the bytes: a compiler's count may hold what never leaves the chip, and
that of arguments and results lacks everything between. Communication between devices is not in it,
nor are the passes that a `model.precision` above the chip's own takes.
"""


def estimate(chip, dtype, flops, moved):
  """How long a device takes.

  Args:
    chip: a `Chip`.
    dtype: compute type, "bfloat16" or "float32".
    flops: floating-point operations of a device.
    moved: bytes that it reads and writes; None where nobody says, then they are left out.

  Returns:
    Dictionary of `estimated_ms`, and of what binds, `bound`: "compute" or "memory"; "compute" also
    where only that is known.
  """
  compute = flops / (chip.bfloat16 if dtype == "bfloat16" else chip.float32)
  memory = 0.0 if moved is None else moved / chip.bandwidth
  bound = "memory" if memory > compute else "compute"
  return {"estimated_ms": 1e3 * max(compute, memory), "bound": bound}
