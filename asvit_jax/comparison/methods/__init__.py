"""Methods: ways to run a network on fewer tokens.

A method is an object with

  adaptive: bool, whether thresholds decide how many tokens an image keeps. Those of an adaptive
    method are calibrated for its budget.
  architecture(paper, merging): returns the `Architecture` that the method runs. It is given two:
    one that prunes as the paper does (arXiv:2209.13802), one that merges as our recipes do.
  solve(arch, budget): returns the counts, a static tuple of ints, whose cost is nearest to the
    share `budget` of the dense GMACs; () for an adaptive method. Their meaning is the method's own:
    patches kept at each stage, or pairs merged in each block. Raises InputError if the method
    cannot meet the budget.
  cost(arch, counts, real): (..., length) counts -> (...) GMACs; for an adaptive method the counts
    are the patches kept at each stage. By the paper's count, which includes similarities, or, if
    `real`, of what is computed.
  execution(counts): returns the function for inference, of a model and normalised images
    (b, s, s, 3), which returns `Outputs` with logits. Shapes are static and removed tokens are not
    computed. The `Outputs` of an adaptive method have `kept`.
  training(counts): returns the function for fine-tuning, with the same arguments and results;
    gradients reach the weights.

How many tokens an image keeps never depends on the other images of its batch.
"""

from asvit_jax.comparison.methods import adaptive, dynamicvit, evit, fixed, tome
from asvit_jax.core.parts import Table

METHODS = Table(
  "method",
  "--methods",
  {
    "drop": adaptive.drop,
    "merge": adaptive.merge,
    "drop_fixed": fixed.drop_fixed,
    "merge_fixed": fixed.merge_fixed,
    "tome": tome.tome,
    "evit": evit.evit,
    "dynamicvit": dynamicvit.dynamicvit,
    "top_k": fixed.drop_fixed,
    "random": fixed.random,
  },
)
ALIASES = {"top_k": "drop_fixed"}  # {alias: name of the same method in `comparison.DEFAULT`}
