"""The executions that can be calibrated for a speed-up: group sizes, widths, forward functions."""

from asvit_jax.sparsity.executions import grouped, packed

FIXED, PACKED = "fixed", "packed"
PACED = (FIXED, PACKED)


def group_sizes(arch, batch, platform):
  """{execution: number of images that it runs at once on a platform of JAX}."""
  return {
    FIXED: grouped.fixed_group_size(arch, batch, platform),
    PACKED: grouped.packed_grouping(arch, batch, platform)[0],
  }


def packed_step(arch, batch, platform):
  """The difference between widths of packed execution on a platform of JAX, in tokens."""
  return grouped.packed_grouping(arch, batch, platform)[1] or packed.STEP


def forward_of(execution):
  """A function of a `Network` and uint8 images that returns the logits of an execution."""
  return lambda network, images: network.apply(images, execution).logits
