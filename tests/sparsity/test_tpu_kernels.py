"""Kernels for a TPU as a chip runs them: copies of as many rows as there are, and eight images.

The other tests interpret kernels as XLA programs, whose copies have static numbers of rows. Here
JAX's interpreter of TPUs runs them, which also finds races between copies.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from asvit_jax.sparsity.executions import flat_rows
from asvit_jax.sparsity.kernels import (
  tpu_attention,
  tpu_compaction,
  tpu_copies,
  tpu_embedding,
  tpu_merging,
)
from asvit_jax.sparsity.scores import class_attention

COUNT = np.array([17, 1, 40, 8, 24, 9], np.int32)
START = np.concatenate([[0], np.cumsum(flat_rows.aligned(COUNT))[:-1]]).astype(np.int32)
LENGTH, WIDTH, HEADS, B = int(flat_rows.aligned(COUNT).sum()), 40, 2, len(COUNT)
THERE = np.arange(WIDTH) < COUNT[:, None]


@pytest.fixture(autouse=True)
def no_races(capfd):
  """The interpreter prints the races that it finds."""
  yield
  printed = capfd.readouterr()
  assert "RACE" not in printed.out + printed.err


def as_a_chip(kernel, *arrays, **options):
  """The results of a kernel by the interpreter of TPUs and by XLA's."""
  interpreters = pltpu.InterpretParams(detect_races=True), True
  return (jax.block_until_ready(kernel(*arrays, interpret=i, **options)) for i in interpreters)


def rows(channels, seed=0):
  return np.random.default_rng(seed).standard_normal((LENGTH, channels)).astype(np.float32)


def of_tokens(a):
  """The rows of tokens; what is between them is undefined."""
  owned = [s + i for s, c in zip(START, COUNT, strict=True) for i in range(c)]
  return np.asarray(a)[owned]


def bias():
  return jnp.where(THERE, 0.0, tpu_attention.NEVER).astype(jnp.float32)


@pytest.mark.parametrize("first", [None, 8])
@pytest.mark.parametrize("biased", [False, True])
def test_attention(first, biased):
  given = rows(3 * tpu_attention.LANES), START, COUNT, *([bias()] if biased else [])
  options = {"heads": HEADS, "width": WIDTH, "first": first}
  ours, theirs = as_a_chip(tpu_attention.attend, *given, **options)
  if first is None:
    ours, theirs = map(of_tokens, (ours, theirs))
  np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_windows():
  given = rows(256), START, COUNT
  ours, theirs = as_a_chip(tpu_copies.windows, *given, width=WIDTH, columns=(128, 128))
  np.testing.assert_array_equal(ours, theirs)


# Alone; in two groups, the second of one image, with an odd number of heads; in two groups.
@pytest.mark.parametrize(
  ("images", "heads", "biased"), [(1, 2, False), (9, 3, True), (18, 2, True)]
)
def test_scores(images, heads, biased):
  rng, channels = np.random.default_rng(0), tpu_attention.pairs_of(heads) * tpu_attention.LANES
  count = np.tile(COUNT, 3)[:images]
  start = np.concatenate([[0], np.cumsum(flat_rows.aligned(count))[:-1]]).astype(np.int32)
  qkv = np.tile(rows(3 * channels), (3, 1))
  there = np.arange(WIDTH) < count[:, None]
  sizes = np.where(there, rng.standard_normal(there.shape), 0.0).astype(np.float32)
  given = [np.where(there, sizes, tpu_attention.NEVER).astype(np.float32)] if biased else []
  options = {"heads": heads, "width": WIDTH}
  attend = functools.partial(tpu_attention.attend, qkv, start, count, *given, **options)
  (context, ours), (_, theirs) = as_a_chip(attend, scores=True)
  np.testing.assert_allclose(ours, theirs, atol=1e-6)
  plain = attend(interpret=True)
  for image, (s, c) in enumerate(zip(start, count, strict=True)):
    np.testing.assert_allclose(context[s : s + c], plain[s : s + c], atol=1e-6)
    q, k, _ = np.moveaxis(qkv[s : s + c].reshape(c, 3, -1, tpu_attention.HEAD), 1, 0)
    logits = np.einsum("hc,khc->kh", q[0], k)[:, :heads] / 8
    logits += sizes[image, :c, None] if biased else 0.0
    attention = np.exp(logits - logits.max(axis=0))
    of_heads = np.asarray(plain[s : s + c]).reshape(c, -1, tpu_attention.HEAD)[:, :heads]
    expected = class_attention.gather(attention / attention.sum(axis=0), of_heads)
    np.testing.assert_allclose(ours[image, :c], expected, atol=1e-5)
    assert not ours[image, c:].any()


@pytest.mark.parametrize("merges", [False, True])
def test_compaction(merges):
  """Every other token stays, and the next one is merged into it."""
  index = np.broadcast_to(np.arange(WIDTH), (B, WIDTH))
  place = np.where(THERE & (index % 2 == 0), index // 2, -1).astype(np.int32)
  count = (place >= 0).sum(axis=1).astype(np.int32)
  start = np.concatenate([[0], np.cumsum(flat_rows.aligned(count))[:-1]]).astype(np.int32)
  into = np.where(THERE, index // 2, -1).astype(np.int32) if merges else place
  given = rows(128), (START, COUNT), (start, count), into
  given += (THERE.astype(np.float32),) if merges else ()
  ours, theirs = as_a_chip(tpu_compaction.compact, *given)
  for s, c in zip(start, count, strict=True):
    np.testing.assert_allclose(ours[s : s + c], theirs[s : s + c], atol=1e-6)
  s, x = START[2], given[0]
  expected = x[s + 4 : s + 6].mean(axis=0) if merges else x[s + 4]
  np.testing.assert_allclose(ours[start[2] + 2], expected, atol=1e-5)


def test_merging():
  rng = np.random.default_rng(0)
  attention = rng.random((B, WIDTH), np.float32)
  position = np.broadcast_to(np.arange(WIDTH, dtype=np.int32), (B, WIDTH))
  given = attention, THERE.astype(np.float32), position, jnp.float32(0.3)
  ours, theirs = as_a_chip(
    *(tpu_merging.merges, rows(128), START, COUNT, *given), exponents=(0.5, 1.0, 1.0, 1.0), prefix=1
  )
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("prefix", "width"), [(0, 128), (1, 192), (5, 128)])
def test_tokens_of_eight_images(prefix, width):
  rng = np.random.default_rng(0)
  images, n = 2 * tpu_embedding.IMAGES, 12
  patches, first, position = (
    rng.standard_normal(shape).astype(np.float32)
    for shape in ((n, images, width), (prefix, width), (prefix + n, width))
  )
  tokens = [np.concatenate([first, patches[:, i]]) + position for i in range(images)]
  for found in as_a_chip(tpu_embedding.embedded, patches, first, position):
    found = np.asarray(found).reshape(images, -1, width)
    assert found.shape[1] == flat_rows.aligned(prefix + n)
    np.testing.assert_array_equal(found[:, : prefix + n], tokens)
