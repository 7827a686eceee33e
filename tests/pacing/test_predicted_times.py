"""What is predicted for a batch, held to sums written out block by block."""

import numpy as np
import paced
import pytest
import tiny

from asvit_jax.pacing import prediction, running
from asvit_jax.sparsity.executions import grouped, packed

BATCH = 8
ARCHS = {
  "drop": tiny.arch(),
  "inside": tiny.arch(prune_inside=True),
  "first and last": tiny.arch(prune_before=(1, 3, 4)),
  "inside, first and last": tiny.arch(prune_before=(1, 3, 4), prune_inside=True),
  "two tokens": tiny.arch(dist_token=True, prune_before=(2, 3)),
}


@pytest.fixture(params=ARCHS)
def arch(request, monkeypatch):
  found = ARCHS[request.param]
  image = 4 * (found.prefix_tokens + found.patches) * found.hidden
  monkeypatch.setattr(grouped, "CACHED_PACKED", 2 * image)  # groups of 2
  monkeypatch.setattr(packed, "STEP", 5)
  monkeypatch.setattr(grouped, "FEW", 0)
  return found


def one_by_one(arch, patches):
  """Ms of a group: `patches` are those before the first stage and after each."""
  ms, at = paced.EMBED, 0
  for i in range(arch.depth):
    n = arch.prefix_tokens + patches[at]
    if i == arch.depth - 1:
      return ms + paced.last(n)
    after = n
    if i + 1 in arch.prune_before:  # a stage follows
      at += 1
      ms += paced.stage(n)
      after = arch.prefix_tokens + patches[at] if arch.prune_inside else n
    if arch.prune_inside and i + 1 in arch.prune_before:
      ms += paced.attended(n) + paced.fed_forward(after)
    else:
      ms += paced.block(n)
  return None


def test_equal_counts_are_the_sum_of_their_parts(arch):
  table = paced.table(arch, BATCH)
  counts = (12, 7, 3)[: arch.stages]
  expected = paced.CALL + BATCH / 2 * one_by_one(arch, (arch.patches, *counts))
  assert prediction.fixed_ms(table, arch, counts) == pytest.approx(expected)


def test_packed_runs_sorted_groups_at_the_rung_of_their_longest(arch):
  rng = np.random.default_rng(3)
  kept = np.sort(rng.integers(0, arch.patches + 1, (BATCH, arch.stages)), axis=1)[:, ::-1]
  table, top = paced.table(arch, BATCH), arch.prefix_tokens + arch.patches
  bounds = (0, *arch.prune_before, arch.depth - 1)
  expected = 0.0
  for index in range(arch.stages + 1):
    counts = np.full(BATCH, arch.patches) if index == 0 else np.sort(kept[:, index - 1])
    for pair in counts.reshape(-1, 2):
      n = arch.prefix_tokens + max(pair)
      n = top if index == 0 else min(-(-n // 5) * 5, top)  # rungs are 5 apart
      blocks, split = bounds[index + 1] - bounds[index], arch.prune_inside
      expected += paced.EMBED if index == 0 else 0
      expected += paced.fed_forward(n) if split and index else 0
      if split and index < arch.stages:
        expected += (blocks - 1) * paced.block(n) + paced.attended(n)
      else:
        expected += blocks * paced.block(n)
      expected += paced.decide(n) if index < arch.stages else paced.last(n)
  ours = prediction.packed_ms(table, arch, kept)
  assert ours == pytest.approx(paced.CALL + expected)
  assert prediction.packed_ms(table, arch, kept, seed=5) == pytest.approx(ours)  # all, in any order


def test_batches_of_many_images_are_drawn_by_the_seed(arch):
  kept = np.random.default_rng(0).integers(0, arch.patches + 1, (40, arch.stages))
  table = paced.table(arch, BATCH)
  ms = [prediction.packed_ms(table, arch, kept, seed) for seed in (0, 0, 1)]
  assert ms[0] == ms[1] != ms[2]
  alike = np.tile(kept[:1], (40, 1))
  one = [prediction.packed_ms(table, arch, kept, 0) for kept in (alike, alike[:3])]
  assert one[0] == one[1]  # few are repeated


def test_times_between_widths_are_interpolated_and_never_fall(arch):
  table = paced.table(arch, BATCH)
  curves = table.of(running.group_sizes(arch, BATCH, paced.PLATFORM)["fixed"])
  rough = type(curves)(2, 1.0, (4, 8, 16), {"block": (1.0, 3.0, 2.0)})
  assert [float(rough.at("block", n)) for n in (2, 4, 6, 8, 12, 16, 20)] == [1, 1, 2, 3, 3, 3, 3]
