"""What a measurement covers: networks, batches and budgets, in full and in quick."""

import dataclasses
import itertools

from asvit_jax import vit
from asvit_jax.config.options import merging
from asvit_jax.vit.architecture import VARIANTS, Architecture

REDUCTIONS = ("drop", "merge")
EXECUTIONS = ("flat", "fixed", "packed")  # besides dense


def _small(**changes):
  # The widths of DeiT-T, for which there are kernels; few patches, as kernels may be interpreted.
  dimensions = dict(width=192, heads=3, depth=5, image_size=96, classes=100)
  return vit.Architecture(**dimensions | {"prune_before": (2, 3, 4)} | changes)


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is measured.

  Attributes:
    seconds: seconds that all parts may take together.
    compared: the `Architecture` on which backends are compared with masked execution.
    compared_in: (compute type, reduction) pairs in which executions are compared.
    timed: {name: `Architecture`}, the most important one first.
    batches: numbers of images, the most important one first.
    shares: shares of the dense GMACs.
    images: number of images to calibrate and to compare on.
    trained: images in a training step on each device.
    trained_by: the reductions of the training steps.
    least_s: seconds to time each pair of executions for, at least.
    compares_timed: whether the first network of `timed` is compared, too.
  """

  seconds: float
  compared: Architecture
  compared_in: tuple[tuple[str, str], ...]
  timed: dict[str, Architecture]
  batches: tuple[int, ...]
  shares: tuple[float, ...]
  images: int
  trained: int
  trained_by: tuple[str, ...]
  least_s: float
  compares_timed: bool = False


FULL = Settings(
  seconds=600,
  compared=_small(),
  compared_in=tuple(itertools.product(("float32", "bfloat16"), REDUCTIONS)),
  timed={name: VARIANTS[name] for name in ("deit_s", "deit_t", "deit_b")},
  batches=(64, 256, 1, 8),
  shares=(0.65, 0.5),
  images=32,
  trained=64,
  trained_by=REDUCTIONS,
  least_s=1.0,
  compares_timed=True,
)
_TINY = _small(depth=3, image_size=64, prune_before=(1, 2))
QUICK = Settings(
  seconds=120,
  compared=_TINY,
  compared_in=(("float32", "drop"), ("float32", "merge"), ("bfloat16", "merge")),
  timed={"tiny": _TINY},
  batches=(4,),
  shares=(0.65,),
  images=4,
  trained=4,
  trained_by=("drop",),
  least_s=0.2,
)


def reduced(arch, reduction):
  """The architecture with one of `REDUCTIONS`."""
  return arch if reduction == "drop" else dataclasses.replace(arch, **merging(arch.depth))
