"""How the executions that a speed can be reached with run: the one place that knows them."""

import jax

from asvit_jax.sparsity.executions import cache_sized, packed

FIXED, PACKED = "fixed", "packed"
PACED = (FIXED, PACKED)


def groups(arch, batch):
  """{execution: images that it runs at once on this device}."""
  platform = jax.default_backend()
  return {
    FIXED: cache_sized.fixed_group(arch, batch, platform),
    PACKED: cache_sized.packed_group(arch, batch, platform)[0],
  }


def step(arch, batch):
  """Tokens between two widths of packed execution on this device."""
  return cache_sized.packed_group(arch, batch, jax.default_backend())[1] or packed.STEP


def forward(execution):
  """A function of a `Network` and images, as users hand them in, that returns its logits."""
  return lambda network, images: network.apply(images, execution).logits
