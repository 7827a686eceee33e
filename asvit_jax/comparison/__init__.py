"""Comparison of methods that run a network on fewer tokens: same weights, images and GMACs or time.

`methods` has the methods, `contenders` a method with a network and a budget, and `running` the
comparison. `accuracy`, `timing` and `finetuning` measure and train a contender; `speedups` and
`solving` search for the budget of a speed-up; `records` keeps the measurements.
"""

# Names of `methods.METHODS`, each method once. They are here because `compare.py --help` lists them
# and must not import JAX, as the methods do.
DEFAULT = ("drop", "merge", "drop_fixed", "merge_fixed", "tome", "evit", "dynamicvit", "random")
