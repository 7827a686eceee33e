"""The parts of a measurement, the most valuable ones first."""

import dataclasses
import functools
import importlib
import itertools
from collections.abc import Callable
from typing import Any

from asvit_jax.measure.settings import EXECUTIONS, REDUCTIONS


class Skipped(Exception):
  """A part cannot be measured on this machine; its text says why."""


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of a measurement.

  Attributes:
    kind: "correctness", "throughput", "training" or "rival".
    of: what is measured, {name: value} for JSON.
    run: function without arguments that returns the result for JSON; it may raise `Skipped`.
    least_s: seconds that must be left to begin it, until another part of its kind took longer.
  """

  kind: str
  of: dict[str, Any]
  run: Callable[[], Any]
  least_s: float

  @property
  def name(self):
    """The name of the part, unique in a measurement."""
    return " ".join([self.kind, *map(str, self.of.values())])


def all_parts(settings, platform):
  """The list of `Part`s of `Settings` for one of JAX's platforms, in their order."""
  dtype = "float32" if platform == "cpu" else "bfloat16"
  first, *others = settings.timed
  largest, *batches = settings.batches
  whole = {first: settings.timed[first]} if settings.compares_timed else {}
  return [
    *_correctness({"small": settings.compared}, settings, True),
    *_throughput([first], [largest], settings, dtype),
    *_correctness(whole, settings, False),
    *_steps(settings),
    *_training(first, settings, dtype, platform == "tpu"),
    *_rivals([first], settings.batches[:2], settings, dtype),
    *_throughput([first], batches, settings, dtype),
    *_throughput(others, [largest], settings, dtype),
    *_rivals(others, [largest], settings, dtype),
    *_throughput(others, batches, settings, dtype),
  ]


def _correctness(networks, settings, backends):
  for name, arch in networks.items():
    for dtype, reduction in settings.compared_in:
      of = {"network": name, "reduction": reduction, "dtype": dtype}
      run = _later(
        *("correctness", arch, reduction, dtype, settings.shares, settings.images, backends)
      )
      yield Part("correctness", of, run, 10)


def _throughput(names, batches, settings, dtype):
  # Packed last: it takes longest to compile.
  chosen = list(itertools.product(EXECUTIONS, REDUCTIONS, settings.shares))
  for batch, name in itertools.product(batches, names):
    for execution, reduction, share in chosen:
      of = {"network": name, "reduction": reduction, "share": share}
      of |= {"batch": batch, "execution": execution, "dtype": dtype}
      run = _later(
        *("throughput", settings.timed[name], reduction, dtype, settings.shares, share),
        *(settings.images, batch, execution, settings.least_s),
      )
      yield Part("throughput", of, run, 10)


def _steps(settings):
  for reduction in settings.trained_by:
    of = {"network": "small step", "reduction": reduction, "dtype": "float32"}
    # Few images, as kernels may be interpreted.
    run = _later("steps", settings.compared, reduction, settings.shares, settings.images, 4)
    yield Part("correctness", of, run, 10)


def _training(name, settings, dtype, kernels):
  for reduction, by in itertools.product(settings.trained_by, (False, True)[: 1 + kernels]):
    of = {"network": name, "reduction": reduction, "dtype": dtype}
    of |= {"by": "kernels"} if by else {}
    run = _later(
      *("training", settings.timed[name], reduction, dtype, settings.shares, settings.images),
      *(settings.trained, by),
    )
    yield Part("training", of, run, 20)


def _rivals(names, batches, settings, dtype):
  for name in names:
    for batch in batches:
      of = {"network": name, "batch": batch, "dtype": dtype}
      yield Part("rival", of, _later("rival", settings.timed[name], dtype, batch), 20)


def _later(module, *arguments):
  """A function that imports a module of this package and calls its `run`."""
  return functools.partial(_run, module, arguments)


def _run(module, arguments):
  return importlib.import_module(f"asvit_jax.measure.{module}").run(*arguments)
