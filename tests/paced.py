"""A device made up for tests: its times are formulas, and those of networks follow from them."""

import numpy as np

from asvit_jax.pacing import prediction, reaching, running
from asvit_jax.pacing.table import Curves, Table

CALL = 0.25


def block(n):
  return 0.1 + 0.1 * n + 0.001 * n**2


def attended(n):
  return 0.04 + 0.04 * n + 0.001 * n**2


def fed_forward(n):
  return 0.06 + 0.06 * n


def stage(n):
  return 0.004 * n


def decide(n):
  return 0.003 + 0.006 * n


def last(n):
  return 0.05 + 0.03 * n


EMBED = 0.2
PARTS = dict(block=block, attended=attended, fed_forward=fed_forward, stage=stage, last=last)
PARTS |= dict(decide=decide)


PLATFORM = "cpu"


def table(arch, batch):
  """The `Table` of a network on that device, whose times are those of a group, any number."""
  curves = []
  for group in sorted(set(running.group_sizes(arch, batch, PLATFORM).values())):
    at = np.arange(1, arch.prefix_tokens + arch.patches + 1)
    parts = {name: tuple(map(float, part(at))) for name, part in PARTS.items()}
    curves.append(Curves(group, EMBED, tuple(at.tolist()), parts))
  n = arch.prefix_tokens + arch.patches
  groups = batch / running.group_sizes(arch, batch, PLATFORM)["fixed"]
  dense = CALL + groups * (EMBED + (arch.depth - 1) * block(n) + last(n))
  return Table("made up", PLATFORM, False, {}, batch, float(dense), CALL, tuple(curves))


def install(patched, slower=1.0):
  """Makes it the device of a `pytest.MonkeyPatch`.

  Args:
    patched: the `MonkeyPatch`.
    slower: what a pruned network takes ÷ what is predicted of it.

  Returns:
    List that gets (execution, counts) of what is timed.
  """
  timed = []

  class Timing:
    def __init__(self, network, given, batch):
      self.arch, self.batch = network.arch, batch

    def __call__(self, execution, counts, trial):
      timed.append((execution, counts))
      of = table(self.arch, self.batch)
      ms = (
        prediction.fixed_ms(of, self.arch, counts)
        if execution == running.FIXED
        else prediction.packed_ms(of, self.arch, trial.kept)
      )
      return of.dense / (slower * ms)

  patched.setattr(reaching, "_Timing", Timing)
  patched.setattr(
    reaching.cache, "load_or_measure", lambda network, batch: table(network.arch, batch)
  )
  return timed
