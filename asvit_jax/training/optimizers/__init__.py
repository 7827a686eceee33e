"""Optimizers: those of optax, and your own. `building` puts them together with what surrounds them.

An optimizer is a function of `learning_rate`, a schedule, and of what `optimizer.arguments` may
give it by name; it returns an `optax.GradientTransformation` that needs no more than gradients and
parameters. Where it takes `weight_decay` and a `mask`, it gets them.

Here are those that the tests know. Any other of optax goes by its name there, and what is in one of
its packages, or yours, by `package.module:object`: `optax.contrib:muon`.
"""

from asvit_jax.core.parts import Table

OPTIMIZERS = Table(
  "optimizer",
  "optimizer.name",
  {
    "adamw": "optax:adamw",
    "lamb": "optax:lamb",
    "lion": "optax:lion",
    "sgd": "optax:sgd",
  },
)
