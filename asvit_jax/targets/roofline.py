"""The least time that a program could take on a chip, an estimate: nothing was run.

A program that keeps the units for matrix products busy all the time takes its FLOPs ÷ their peak;
one that keeps the memory busy all the time its bytes ÷ the bandwidth. It takes at least the longer
of the two. Real programs reach a share of it; communication between devices is not in it.
"""


def estimate(chip, dtype, flops, moved):
  """Seconds that a device needs at least.

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
