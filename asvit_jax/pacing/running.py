"""How the executions that a speed can be reached with run: the one place that knows them."""

from asvit_jax.sparsity.executions import grouped, packed

FIXED, PACKED = "fixed", "packed"
PACED = (FIXED, PACKED)


def group_sizes(arch, batch, platform):
  """{execution: images that it runs at once on a platform of JAX}."""
  return {
    FIXED: grouped.fixed_group_size(arch, batch, platform),
    PACKED: grouped.packed_grouping(arch, batch, platform)[0],
  }


def packed_step(arch, batch, platform):
  """Tokens between two widths of packed execution on a platform of JAX."""
  return grouped.packed_grouping(arch, batch, platform)[1] or packed.STEP


def forward_of(execution):
  """A function of a `Network` and images, as users hand them in, that returns its logits."""
  return lambda network, images: network.apply(images, execution).logits
