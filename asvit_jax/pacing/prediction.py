"""Predicts the time of a batch from the times of the network's parts.

A network runs in segments: up to the first stage, from each stage to the next, and from the last
one through the last block. Fixed execution runs each segment at one number of tokens for all
images; packed execution sorts images into groups, and runs each group at its own number of tokens.
"""

import numpy as np

from asvit_jax.pacing import running
from asvit_jax.sparsity.executions.packed import choose_widths

_BATCHES = 8  # random batches over which predictions for packed execution are averaged


def fixed_ms(table, arch, counts):
  """Milliseconds per batch in fixed execution.

  Args:
    table: the `Table` of the network.
    arch: its `Architecture`.
    counts: (stages,) patches that each stage keeps.
  """
  curves = table.of(running.group_sizes(arch, table.batch, table.platform)[running.FIXED])
  tokens = arch.prefix_tokens + np.array([arch.patches, *counts])
  segments = sum(_segment_ms(curves, arch, i, n) for i, n in enumerate(tokens))
  return float(table.call + table.batch / curves.group * (curves.embed + segments))


def packed_ms(table, arch, kept, seed=0):
  """Milliseconds per batch in packed execution, the mean over random batches.

  The time of sorting the images is not included.

  Args:
    table: the `Table` of the network.
    arch: its `Architecture`.
    kept: (images, stages) patches that each stage keeps of each image.
    seed: seed of the random batches.
  """
  batch = table.batch
  curves = table.of(running.group_sizes(arch, batch, table.platform)[running.PACKED])
  top = arch.prefix_tokens + arch.patches
  # All widths, although a network with counts compiles only those near them; the rest rarely run.
  allowed = np.array(choose_widths(top, running.packed_step(arch, batch, table.platform)))
  tokens = arch.prefix_tokens + kept[_batches(len(kept), batch, seed)]  # (batches, batch, stages)
  longest = np.sort(tokens, axis=1).reshape(len(tokens), -1, curves.group, arch.stages).max(axis=2)
  widths = allowed[np.searchsorted(allowed, longest)]  # (batches, groups, stages)
  first = batch / curves.group * (curves.embed + _segment_ms(curves, arch, 0, top, "decide"))
  rest = sum(_segment_ms(curves, arch, 1 + i, widths[..., i], "decide") for i in range(arch.stages))
  return float(table.call + first + rest.sum(axis=1).mean())


def _segment_ms(curves, arch, index, width, stage="stage"):
  """Milliseconds of a group in one segment, including the stage at its end.

  Args:
    curves: `Curves`.
    arch: the `Architecture`.
    index: index of the segment; 0 begins after the stem, and the last ends with the heads.
    width: number of tokens, or an array of them.
    stage: the part of `curves` that is a stage in this execution, "stage" or "decide".
  """
  bounds, last = (0, *arch.prune_before, arch.depth - 1), index == arch.stages
  ms = (bounds[index + 1] - bounds[index]) * curves.at("block", width)
  if arch.prune_inside and index:  # the previous stage stopped after its block's attention
    ms = ms + curves.at("fed_forward", width)
  if arch.prune_inside and not last:
    ms = ms + curves.at("attended", width) - curves.at("block", width)
  return ms + curves.at("last" if last else stage, width)


def _batches(images, batch, seed):
  """(batches, batch) random indices of images; few images are repeated equally often."""
  rng = np.random.default_rng(seed)
  repeats = -(-batch // images)
  return np.stack(
    [
      np.concatenate([rng.permutation(images) for _ in range(repeats)])[:batch]
      for _ in range(_BATCHES)
    ]
  )
