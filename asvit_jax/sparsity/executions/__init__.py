"""How a network runs: dense, masked or packed, from the same parameters and the same blocks.

| execution | tokens live in | for |
|---|---|---|
| dense  | (b, n, d) | the teacher, the baseline |
| masked | (b, n, d) and a keep mask (b, n) | training; the definition of pruning |
| packed | (g, width, d): the kept tokens of a group of images, at its width | inference |

`in_place` has dense and masked, `packed` packed; `EXECUTIONS` has all three as inference runs them.
"""

from asvit_jax.core.parts import Table

EXECUTIONS = Table(
  "execution",
  "execution",
  {
    "dense": "asvit_jax.sparsity.executions.cache_sized:dense",
    "masked": "asvit_jax.sparsity.executions.cache_sized:masked",
    "packed": "asvit_jax.sparsity.executions.cache_sized:packed",
  },
)
