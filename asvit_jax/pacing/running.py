"""How the executions that a speed can be reached with run: the one place that knows them."""

from asvit_jax.sparsity.executions import cache_sized, packed

FIXED, PACKED = "fixed", "packed"
PACED = (FIXED, PACKED)


def groups(arch, batch, platform):
  """{execution: images that it runs at once on a platform of JAX}."""
  return {
    FIXED: cache_sized.fixed_group(arch, batch, platform),
    PACKED: cache_sized.packed_group(arch, batch, platform)[0],
  }


def step(arch, batch, platform):
  """Tokens between two widths of packed execution on a platform of JAX."""
  return cache_sized.packed_group(arch, batch, platform)[1] or packed.STEP


def forward(execution):
  """A function of a `Network` and images, as users hand them in, that returns its logits."""
  return lambda network, images: network.apply(images, execution).logits
