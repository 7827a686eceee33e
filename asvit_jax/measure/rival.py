"""The dense network of timm under `torch.compile`, on the same device, if PyTorch is installed."""

import importlib.util
import statistics
import time

import jax
import numpy as np

from asvit_jax.measure.parts import Skipped

_ROUNDS = 10


def run(arch, dtype, batch):
  """Times timm's vision transformer of the same dimensions, with random weights.

  Args:
    arch: an `Architecture`.
    dtype: compute type.
    batch: number of images.

  Returns:
    Dictionary for JSON: `images_per_s`, `ms` (the median), `first_s`, the seconds of the first
    call, which compiles, and the versions of `torch` and `timm`.

  Raises:
    Skipped: PyTorch or timm is not installed, or PyTorch has not this device.
  """
  missing = [name for name in ("torch", "timm") if importlib.util.find_spec(name) is None]
  if missing:
    raise Skipped(f"{' and '.join(missing)} not installed")
  import timm
  import torch
  from timm.models.vision_transformer import VisionTransformer

  device = {"cpu": "cpu", "gpu": "cuda"}.get(jax.default_backend())
  if device is None or (device == "cuda" and not torch.cuda.is_available()):
    raise Skipped(f"PyTorch {torch.__version__} does not reach this {jax.default_backend()}")
  model = VisionTransformer(
    img_size=arch.image_hw,
    patch_size=arch.patch_size,
    embed_dim=arch.width,
    depth=arch.depth,
    num_heads=arch.heads,
    mlp_ratio=arch.mlp_ratio,
    num_classes=arch.classes,
  )
  kind = getattr(torch, dtype)
  model = torch.compile(model.to(device, kind).eval())
  noise = np.random.default_rng(0).standard_normal((batch, 3, *arch.image_hw), np.float32)
  pixels = torch.from_numpy(noise).to(device, kind)
  seconds = []
  with torch.inference_mode():
    for _ in range(1 + _ROUNDS):
      start = time.perf_counter()
      model(pixels)
      if device == "cuda":
        torch.cuda.synchronize()
      seconds.append(time.perf_counter() - start)
  middle = statistics.median(seconds[1:])
  return {
    "images_per_s": batch / middle,
    "ms": 1e3 * middle,
    "first_s": seconds[0],
    "torch": torch.__version__,
    "timm": timm.__version__,
  }
