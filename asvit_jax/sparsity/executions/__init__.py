"""Executions of a network, with the same parameters and blocks.

| execution | token layout | for |
|---|---|---|
| dense  | (b, n, d) | the teacher, the baseline |
| masked | (b, n, d) and a keep mask (b, n) | training; the definition of pruning |
| packed | (g, width, d): the kept tokens of a group of images, at its width | inference |
| flat   | (T, d): the kept tokens of all images, one after another | inference on accelerators |
| fixed  | (b, count, d): the same number of tokens of every image | inference, static shapes |

`in_place` implements dense and masked, `packed` packed, `flat` flat, and `fixed_count` fixed.
`EXECUTIONS` lists the versions for inference, of `grouped`, which run a batch in groups that suit
the device, and of `flat_backends`. Masked, packed and flat keep the tokens whose score exceeds the
threshold. Fixed ignores the thresholds and keeps the tokens with the highest scores, as many as the
model's `counts` say: the mean number that the thresholds keep, or any other.
"""

from asvit_jax.core.parts import Table

# Texts, not objects: commands list the names for `--help`, which would wait for JAX.
EXECUTIONS = Table(
  "execution",
  "execution",
  {
    "dense": "asvit_jax.sparsity.executions.grouped:dense_in_groups",
    "masked": "asvit_jax.sparsity.executions.grouped:masked_in_groups",
    "packed": "asvit_jax.sparsity.executions.grouped:packed_in_groups",
    "flat": "asvit_jax.sparsity.executions.flat_backends:flat_in_groups",
    "fixed": "asvit_jax.sparsity.executions.grouped:fixed_in_groups",
  },
)
