"""What is timed are the parts of the network, at the widths and groups that executions run."""

import jax
import numpy as np
import pytest
import tiny

from asvit_jax.pacing import running, table
from asvit_jax.sparsity.executions import grouped
from asvit_jax.sparsity.pruning import Pruning

BATCH = 4


@pytest.mark.slow
@pytest.mark.parametrize(
  "changes", [{}, {"dist_token": True}, {"reduction": "merge"}, {**tiny.LV, "image_size": 64}]
)
def test_the_parts_in_a_row_are_the_dense_network(changes):
  network = tiny.network(tiny.arch(depth=5, **changes)).dense
  images = np.random.default_rng(0).integers(0, 256, (3, *network.arch.image_shape), np.uint8)
  x = jax.jit(table._embed)(network, images)
  sizes = Pruning.of(network.arch).first_sizes(*x.shape[:2])
  assert (sizes is not None) == (network.arch.reduction == "merge")

  @jax.jit
  def in_halves(network, x, sizes):
    for block in network.model.blocks[:4]:
      x, _ = block.attended(x, table._attend(network.arch, x, sizes))
      x = block.fed_forward(x)
    return x

  halves = in_halves(network, x, sizes)
  x = jax.jit(table._blocks)(network, x, sizes)
  np.testing.assert_allclose(x, halves, atol=1e-5)
  expected = network(images, "dense").logits
  np.testing.assert_allclose(jax.jit(table._last)(network, x, sizes), expected, atol=1e-4)
  whole = jax.jit(running.forward_of("dense"))(network, images)
  np.testing.assert_allclose(whole, expected, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"prune_inside": True, "reduction": "merge"}])
def test_every_part_is_timed_at_every_width(changes, monkeypatch):
  arch = tiny.arch(depth=2, prune_before=(1,), image_size=16, **changes)
  image = 4 * (arch.prefix_tokens + arch.patches) * arch.hidden
  monkeypatch.setattr(grouped, "CACHED_PACKED", 2 * image)
  found = table.measure_table(tiny.network(arch).dense, BATCH, rounds=1)
  (curves,) = found.curves
  assert (found.batch, curves.group) == (BATCH, 2)
  halves = {"attended", "fed_forward"} if arch.prune_inside else set()
  assert curves.parts.keys() == {"block", "stage", "decide", "last"} | halves
  assert curves.widths == table.widths(arch)
  for row in curves.parts.values():
    assert len(row) == len(curves.widths)
    assert min(row) > 0
  assert min(found.dense, found.call, curves.embed) > 0


def test_widths_reach_from_few_tokens_to_all():
  assert table.widths(tiny.arch(image_size=224, patch_size=16)) == (16, 46, 76, 106, 137, 167, 197)
  for side in (8, 16, 24, 32, 64):
    arch = tiny.arch(image_size=side, patch_size=8, dist_token=True)
    at = table.widths(arch)
    assert at == tuple(sorted(set(at)))
    assert at[0] > arch.prefix_tokens
    assert at[-1] == arch.patches + 2


@pytest.mark.parametrize(
  "changes", [{"reduction": "merge"}, {"reduction": "merge_tokens", "score": "merge_cost"}, {}]
)
def test_a_stage_leaves_two_thirds_of_the_patches(changes):
  network = tiny.network(tiny.arch(depth=5, **changes)).dense
  x = np.random.default_rng(0).standard_normal((2, 13, 24)).astype(np.float32)
  stage = jax.jit(table._before_stage)(network, x)
  left, sizes, _ = jax.jit(table._stage)(network, stage)
  assert left.shape == (2, 9, 24)
  # A threshold that leaves as many makes packed's the same.
  scores = np.asarray(jax.jit(Pruning.of(network.arch).scores)(stage))
  assert len(np.unique(scores[:1])) > 9
  one = jax.tree.map(lambda a: a[:1], stage)
  threshold = np.sort(scores[0])[-10:-8].mean()
  rows = jax.jit(table._decide)(network.with_thresholds([threshold] * 3), one)
  np.testing.assert_allclose(rows.x, left[:1], atol=1e-5)
  if changes:
    np.testing.assert_allclose(sizes.sum(axis=1), 13, rtol=1e-5)  # the others are merged into them
    np.testing.assert_allclose(rows.sizes, sizes[:1], rtol=1e-5)
