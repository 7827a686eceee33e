"""GMACs from token counts: the one place that knows what a network costs.

Multiply-accumulates of the linear layers, the attention products and the stem, as the paper counts
them: the dense network by its patch tokens, a pruned one by its kept tokens and the class token.
For LV-ViT the authors also count element-wise work.
"""

import jax.numpy as jnp

from asvit_jax.errors import InputError


def gmacs(arch, kept):
  """GMACs of a pruned network, differentiable in the kept counts.

  Args:
    arch: an `Architecture` with s stages.
    kept: (..., s) patch tokens that each stage keeps.

  Returns:
    (...) float32 GMACs.
  """
  blocks = jnp.diff(jnp.array([0, *arch.prune_before, arch.depth]))  # blocks run by each stage
  before = jnp.full((*kept.shape[:-1], 1), arch.patches, kept.dtype)
  tokens = jnp.concatenate([before, kept], axis=-1) + 1
  return _stem_gmacs(arch) + (blocks * _block_gmacs(arch, tokens)).sum(axis=-1)


def dense_gmacs(arch):
  """GMACs of the dense network, a float."""
  return _stem_gmacs(arch) + arch.depth * _block_gmacs(arch, arch.patches)


def check_budget(arch, budget):
  """Raises InputError where a budget, a share of the dense GMACs, cannot be met."""
  if not 0 < budget <= 1:
    raise InputError(
      f"budget {budget:g} is not in (0, 1]: it is the share of the dense model's GMACs to keep"
    )
  if not arch.prune_before:
    raise InputError(f"budget {budget:g} for a network that prunes nowhere: prune_before is empty")
  least = float(gmacs(arch, jnp.zeros(len(arch.prune_before)))) / dense_gmacs(arch)
  if budget < least:
    raise InputError(
      f"budget {budget:g} cannot be met: with every patch pruned from block "
      f"{arch.prune_before[0]} on, {least:.3f} of the dense GMACs remain; ask for more, or prune "
      "earlier"
    )


def memory_mb(program):
  """MiB of a device that a compiled program takes, by the compiler's account.

  Args:
    program: what `jax.jit(…).lower(…).compile()` returns.

  Returns:
    Arguments and temporaries together; None where the compiler does not say.
  """
  analysis = program.memory_analysis()
  if analysis is None:
    return None
  return (analysis.argument_size_in_bytes + analysis.temp_size_in_bytes) / 2**20


def _block_gmacs(arch, n):
  d, m = arch.width, arch.mlp_ratio * arch.width
  linear = 4 * d * d + 2 * d * m  # q, k, v, output projection; both layers of the MLP
  if arch.stem != "lv":
    return 1e-9 * (linear * n + 2 * d * n * n)
  softmax = 6 * arch.heads  # 5 for a logit, 1 for its scale
  pointwise = 14 * d + 9 * m  # twice layer norm 5, residual 1 and bias 1; GELU 8 and bias 1
  return 1e-9 * ((linear + pointwise) * n + (2 * d + softmax) * n * n)


def _stem_gmacs(arch):
  d, p = arch.width, arch.patch_size
  if arch.stem == "patch":
    return 1e-9 * arch.patches * 3 * p * p * d
  half = (arch.image_size // 2) ** 2  # positions after the convolution of stride 2
  if arch.stem == "lv":
    # The projection runs on a grid of 14x14, but the authors count it as d by 64 at every position
    # before it, which is the same number of MACs.
    return 1e-9 * half * (3 * 64 * 49 + 2 * 64 * 64 * 9 + 64 * d)
  convs = half * 9 * (3 * (d // 4) + (d // 4) * (d // 2))
  return 1e-9 * (convs + arch.patches * (d // 2) * (p // 2) ** 2 * d)
