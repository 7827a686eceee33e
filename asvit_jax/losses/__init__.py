"""The terms of the training objective (arXiv:2209.13802, Eq. 9-12), each with its weight.

A term is an object with

  applies(arch, prunes): whether a network of this `Architecture` has it; `prunes` says whether it
    is trained with thresholds, and so with a teacher.
  __call__(outputs, batch): its value, (), of a forward pass; `batch` is an `objective.Batch`.

Every term that applies is computed and logged; the weights, `config.loss`, say what it counts for.
"""

from asvit_jax.core.parts import Table

LOSSES = Table(
  "loss term",
  "loss",
  {
    "classification": "asvit_jax.losses.classification:classification",
    "budget": "asvit_jax.losses.budget:budget",
    "distillation": "asvit_jax.losses.distillation:distillation",
    "token_distillation": "asvit_jax.losses.distillation:token_distillation",
  },
)

# By default, those of the authors' code.
WEIGHTS = {
  "classification": 1.0,
  "budget": 2.0,  # a GMAC away from the target
  "distillation": 0.5,
  "token_distillation": 0.5,  # of the auxiliary head, where there is one
}
