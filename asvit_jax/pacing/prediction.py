"""What a batch takes, added up from the times of the parts.

A network runs in segments: up to the first stage, from each stage to the next, and from the last
one through the last block. `fixed` execution runs every segment at one number of tokens, packed
every group of images at its own, as `executions.packed` forms them.
"""

import numpy as np

from asvit_jax.pacing import running
from asvit_jax.sparsity.executions.packed import choose_widths

_BATCHES = 8  # that packed is predicted for


def fixed_ms(table, arch, counts):
  """Milliseconds of a batch where every image keeps the same.

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
  """Milliseconds of a batch in packed execution, the mean over random batches.

  What sorting images takes is not in it.

  Args:
    table: the `Table` of the network.
    arch: its `Architecture`.
    kept: (images, stages) patches that each stage keeps of each image.
    seed: of the batches.
  """
  batch = table.batch
  curves = table.of(running.group_sizes(arch, batch, table.platform)[running.PACKED])
  top = arch.prefix_tokens + arch.patches
  # All of them: those that are not compiled where the mean is known are rarely run.
  allowed = np.array(choose_widths(top, running.packed_step(arch, batch, table.platform)))
  tokens = arch.prefix_tokens + kept[_batches(len(kept), batch, seed)]  # (batches, batch, stages)
  longest = np.sort(tokens, axis=1).reshape(len(tokens), -1, curves.group, arch.stages).max(axis=2)
  widths = allowed[np.searchsorted(allowed, longest)]  # (batches, groups, stages)
  first = batch / curves.group * (curves.embed + _segment_ms(curves, arch, 0, top, "decide"))
  rest = sum(_segment_ms(curves, arch, 1 + i, widths[..., i], "decide") for i in range(arch.stages))
  return float(table.call + first + rest.sum(axis=1).mean())


def _segment_ms(curves, arch, index, width, stage="stage"):
  """Milliseconds of a group from stage `index` - 1 to the next, that included, or to the end.

  Args:
    curves: `Curves`.
    arch: the `Architecture`.
    index: of the segment; the first begins after the stem.
    width: tokens, or an array of them.
    stage: the part that is a stage of the execution.
  """
  bounds, last = (0, *arch.prune_before, arch.depth - 1), index == arch.stages
  ms = (bounds[index + 1] - bounds[index]) * curves.at("block", width)
  if arch.prune_inside and index:  # the stage left the block before after its attention
    ms = ms + curves.at("fed_forward", width)
  if arch.prune_inside and not last:
    ms = ms + curves.at("attended", width) - curves.at("block", width)
  return ms + curves.at("last" if last else stage, width)


def _batches(images, batch, seed):
  """(batches, batch) indices of images; each as often as another where there are few."""
  rng = np.random.default_rng(seed)
  repeats = -(-batch // images)
  return np.stack(
    [
      np.concatenate([rng.permutation(images) for _ in range(repeats)])[:batch]
      for _ in range(_BATCHES)
    ]
  )
