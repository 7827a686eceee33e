"""How a network runs: dense, masked, packed or fixed, by the same parameters and blocks.

| execution | tokens live in | for |
|---|---|---|
| dense  | (b, n, d) | the teacher, the baseline |
| masked | (b, n, d) and a keep mask (b, n) | training; the definition of pruning |
| packed | (g, width, d): the kept tokens of a group of images, at its width | inference |
| fixed  | (b, count, d): as many tokens of every image, its best | inference, static shapes |

`in_place` has dense and masked, `packed` packed, `fixed_count` fixed; `EXECUTIONS` has all as
inference runs them. All but fixed keep of an image what exceeds the thresholds; fixed does not read
them, but the model's `counts`, the mean that thresholds keep or any others.
"""

from asvit_jax.core.parts import Table

EXECUTIONS = Table(
  "execution",
  "execution",
  {
    "dense": "asvit_jax.sparsity.executions.cache_sized:dense",
    "masked": "asvit_jax.sparsity.executions.cache_sized:masked",
    "packed": "asvit_jax.sparsity.executions.cache_sized:packed",
    "fixed": "asvit_jax.sparsity.executions.cache_sized:fixed",
  },
)
