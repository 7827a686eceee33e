"""Methods: ways to run a network on fewer tokens.

A method is an object with

  adaptive: whether thresholds decide how many tokens an image keeps; a bool. They are calibrated.
  architecture(paper, merging): the `Architecture` that it runs with, of two: one that prunes as the
    paper does (arXiv:2209.13802), and one that merges as our recipes do.
  solve(arch, budget): the numbers of tokens, a tuple, static, that come nearest to a share of the
    dense GMACs; () for an adaptive method. Raises InputError where it cannot be met.
  cost(arch, counts, real): GMACs of these numbers, (..., length) -> (...); of the patches that each
    stage keeps where the method is adaptive. By the paper's count, with similarities, or really.
  execution(counts): function of (model, normalised images (b, s, s, 3)) that returns `Outputs` with
    logits, as inference runs it: static shapes, truly fewer tokens; `kept` where it is adaptive.
  training(counts): the same, as it is fine-tuned: gradients reach the weights.

How many tokens are in an image never depends on the others of its batch.
"""

from asvit_jax.core.parts import Table

METHODS = Table(
  "method",
  "--methods",
  {
    "drop": "asvit_jax.comparison.methods.drop:drop",
    "merge": "asvit_jax.comparison.methods.merge:merge",
    "drop_fixed": "asvit_jax.comparison.methods.drop_fixed:drop_fixed",
    "merge_fixed": "asvit_jax.comparison.methods.merge_fixed:merge_fixed",
    "tome": "asvit_jax.comparison.methods.tome:tome",
    "evit": "asvit_jax.comparison.methods.evit:evit",
    "dynamicvit": "asvit_jax.comparison.methods.dynamicvit:dynamicvit",
    "top_k": "asvit_jax.comparison.methods.drop_fixed:drop_fixed",
    "random": "asvit_jax.comparison.methods.random:random",
  },
)
ALIASES = {"top_k": "drop_fixed"}  # {another name: that of the same method}
DEFAULT = tuple(name for name in METHODS if name not in ALIASES)  # what is compared, each once
