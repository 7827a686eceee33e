"""Adaptive Sparse ViT in JAX: vision transformers that keep only the tokens an image needs.

    network = asvit_jax.load("hf:timm/deit_small_patch16_224.fb_in1k")
    network = network.calibrate(images, budget=0.65)
    logits = network(images).logits

Everything is imported when it is first used.
"""

import importlib
import os

# Where TensorFlow is installed epath would load it for gs://…, for seconds and a gigabyte; it looks
# once in a process.
os.environ.setdefault("EPATH_USE_TF", "0")

_PLACES = {
  "Architecture": "asvit_jax.vit",
  "Artifact": "asvit_jax.export.artifacts",
  "InputError": "asvit_jax.core.errors",
  "Network": "asvit_jax.network",
  "Outputs": "asvit_jax.sparsity.executions.in_place",
  "Preprocessing": "asvit_jax.data.preprocessing",
  "VARIANTS": "asvit_jax.vit",
  "create": "asvit_jax.network",
  "draw_run": "asvit_jax.report.curves",
  "draw_tokens": "asvit_jax.api",
  "estimated_times": "asvit_jax.targets.times",
  "evaluate": "asvit_jax.api",
  "load": "asvit_jax.network",
  "load_artifact": "asvit_jax.export.artifacts",
  "open_images": "asvit_jax.api",
  "recipe": "asvit_jax.api",
  "train": "asvit_jax.training.train",
  "unmerge": "asvit_jax.sparsity.sources",
}

__all__ = sorted(_PLACES)


def __getattr__(name):
  if name not in _PLACES:
    raise AttributeError(f"module 'asvit_jax' has no attribute {name!r}")
  return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__():
  return [*globals(), *_PLACES]
