"""How the executions that a speed can be reached with run: the one place that knows them."""

import functools

import jax

from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.executions import EXECUTIONS, cache_sized, packed
from asvit_jax.sparsity.executions.fixed_count import fixed_count
from asvit_jax.vit.images import normalized

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


def dense_forward(network, images):
  """(b, classes) logits of a `Network`'s dense execution, of images as users hand them in."""
  return _logits(EXECUTIONS["dense"], network, images)


def forward(execution, counts):
  """A function like `dense_forward` of a network that prunes.

  Args:
    execution: of `PACED`.
    counts: patches that each stage keeps, which the fixed execution runs with.
  """
  run = EXECUTIONS[execution] if execution != FIXED else _fixed(counts)
  return functools.partial(_logits, run)


def default(execution):
  """The execution that a network runs by which reached its speed with this one."""
  return execution if execution in EXECUTIONS.names else PACKED


def _fixed(counts):
  run = functools.partial(fixed_count, counts=counts)
  return cache_sized.cache_sized(run, cache_sized.CACHED_PACKED)


@usual
def _logits(execution, network, images):
  return execution(network.model, normalized(images, network.preprocessing)).logits
