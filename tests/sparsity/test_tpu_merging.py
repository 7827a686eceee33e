"""The kernel that decides what a stage merges, interpreted, is the score and the reduction."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.sparsity.executions import flat_tpu
from asvit_jax.sparsity.kernels import tpu_merging
from asvit_jax.sparsity.reductions import merge_tokens
from asvit_jax.sparsity.scores import cosine_similarity, merge_cost

WIDTH, CHANNELS = 48, 128
COUNTS = (33, 48, 2, 17, 30)


def stage(seed=0):
  """Rows of images, not a number where no token is: (rows, start, windows, attention, sizes)."""
  rng = np.random.default_rng(seed)
  count = np.array(COUNTS, np.int32)
  ends = np.cumsum(-(-count // 16) * 16)
  start = np.concatenate([[0], ends[:-1]]).astype(np.int32)
  rows = np.full((ends[-1] + 16, CHANNELS), np.nan, np.float32)
  windows = np.zeros((len(count), WIDTH, CHANNELS), np.float32)
  for image, (s, c) in enumerate(zip(start, count, strict=True)):
    windows[image, :c] = 1 + rng.standard_normal((c, CHANNELS))
    rows[s : s + c] = windows[image, :c]
  there = np.arange(WIDTH) < count[:, None]
  # Attention has ties; sizes are exact.
  attention = np.where(there, rng.integers(0, 40, there.shape) / 640, 0).astype(np.float32)
  sizes = np.where(there, rng.integers(1, 9, there.shape), 0).astype(np.float32)
  return rows, (start, count), windows, attention, sizes


@pytest.mark.parametrize("prefix", [1, 0, 2])
@pytest.mark.parametrize("exponents", [(0.5, 1.0, 0.5, 0.25), (1.0, 1.0), (0.5, 2.0, 1.0)])
def test_it_decides_as_the_score_and_the_reduction(exponents, prefix):
  rows, (start, count), windows, attention, sizes = stage()
  there = np.arange(WIDTH) < count[:, None]

  def seen(a):  # one token before the patches
    return np.concatenate([a[:, :1], a[:, prefix:]] if prefix else [a[:, :1], a], axis=1)

  similarity = cosine_similarity(seen(windows))
  cost = merge_cost(seen(attention), similarity, seen(there), exponents, seen(sizes))[:, 1:]
  last = there[-1, prefix:]
  attention[-1, :] *= 1e-6  # nothing of the last image is kept
  cost = cost.at[-1].set(0.0)
  threshold = np.sort(np.asarray(cost)[there[:, prefix:]])
  middle = len(threshold) // 2 + np.arange(-9, 9)
  low = middle[np.argmax(threshold[middle + 1] - threshold[middle])]
  threshold = np.float32((threshold[low] + threshold[low + 1]) / 2)
  kept = (np.asarray(cost) > threshold) & there[:, prefix:]
  assert last.any() and not kept[-1].any() and kept[:-1].any() and not kept[:2].all()

  position = np.arange(WIDTH, dtype=np.int32)[::-1] + np.zeros_like(sizes, np.int32)
  destination, into, total, moved = tpu_merging.merges(
    *(rows, start, count, attention, sizes, position, jnp.asarray(threshold)),
    **dict(exponents=exponents, prefix=prefix, widths=(32, WIDTH), interpret=True),
  )
  keep = np.concatenate([there[:, :prefix], kept], axis=1)
  wanted = merge_tokens.destinations(np.pad(kept, ((0, 0), (1, 0)), constant_values=1), similarity)
  wanted = np.asarray(wanted)[:, 1:] - 1 + prefix
  wanted = np.where(kept, np.arange(prefix, WIDTH), wanted)
  wanted = np.where(there[:, prefix:], np.minimum(wanted, WIDTH), WIDTH)
  np.testing.assert_array_equal(destination[:, prefix:], wanted)
  for image, kept in enumerate(keep):
    n, part_of = kept.sum(), np.asarray(destination[image])
    places = np.append(np.where(kept, kept.cumsum() - 1, -1), -1)
    np.testing.assert_array_equal(into[image], places[part_of])
    masses = np.bincount(part_of, sizes[image], WIDTH + 1)[:-1]
    np.testing.assert_array_equal(total[image], np.pad(masses[kept], (0, WIDTH - n)))
    np.testing.assert_array_equal(moved[image], np.pad(position[image][kept], (0, WIDTH - n)))


def test_networks_of_which_it_decides():
  def decided(**changes):
    arch = tiny.arch(**dict(score="merge_cost", reduction="merge_tokens") | changes)
    return flat_tpu.decides(arch)

  assert decided()
  assert decided(dist_token=True, prune_inside=True)
  for changes in (
    dict(score="class_attention"),
    dict(reduction="merge"),
    dict(reduction="drop"),
    dict(count_multiple=4),
    dict(pool="avg"),  # keeps a patch at least
  ):
    assert not decided(**changes), changes
  assert vit.VARIANTS["deit_s"].least_patches == 0
