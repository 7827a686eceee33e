"""The vision transformer without pruning: dimensions, stems, layers, parameters."""

from asvit_jax.vit.architecture import VARIANTS, Architecture
from asvit_jax.vit.rounding import rounded
from asvit_jax.vit.transformer import (
  VisionTransformer,
  initial_params,
  initial_thresholds,
  model,
  prunes,
  specs,
  without_thresholds,
)

__all__ = [
  "VARIANTS",
  "Architecture",
  "VisionTransformer",
  "initial_params",
  "initial_thresholds",
  "model",
  "prunes",
  "rounded",
  "specs",
  "without_thresholds",
]
