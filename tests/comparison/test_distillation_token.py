"""Every method on networks with DeiT's distillation token, beside the class token."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import method_oracles
import numpy as np
import pytest
import tiny
from test_methods import (
  DISTINCT,
  MERGING,
  PAPER,
  SHARES,
  assert_dense_with_nothing_taken_away,
  by_oracle,
  logits_of,
)

from asvit_jax.comparison.methods import METHODS
from asvit_jax.comparison.methods.tome import merge_pairs
from asvit_jax.core import leaves

TOKENS = {"two heads": {"dist_head": True}, "one head": {}}

pytestmark = pytest.mark.usefixtures("short_ladders")


@functools.cache
def prepared(name, heads="two heads", alone=False):
  """(method, arch, params, counts) of a method on a small network with a distillation token.

  Args:
    name: of the method.
    heads: of `TOKENS`.
    alone: whether nothing that tokens see in each other is added to them.
  """
  method = METHODS[name]
  changes = TOKENS[heads] | {"dist_token": True}
  paper, merging = (dataclasses.replace(arch, **changes) for arch in (PAPER, MERGING))
  arch = method.architecture(paper, merging)
  params = tiny.params(paper)
  if alone:
    params = leaves.map_named(lambda key, x: 0 * x if "attn.proj" in key else x, params)
  params = params | {"thresholds": jnp.zeros(3)}
  params = tiny.with_thresholds(arch, params, tiny.images(arch, 4), SHARES)
  return method, arch, params, method.solve(arch, 0.6)


@pytest.fixture(scope="module")
def images():
  return tiny.images(PAPER, 4)


HERE = {("merge", "one head"), ("tome", "two heads"), ("evit", "two heads")}  # others: test-all
CASES = [
  (name, heads) if (name, heads) in HERE else pytest.param(name, heads, marks=pytest.mark.slow)
  for name in DISTINCT
  for heads in TOKENS
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "heads"), CASES)
def test_the_prediction_reads_the_tokens_before_the_patches_whatever_goes(images, name, heads):
  """In a network whose tokens stay by themselves, these alone decide: all must be as in dense."""
  method, arch, params, counts = prepared(name, heads, alone=True)
  dense = np.asarray(tiny.run_dense(arch, params, images).logits)
  assert method.adaptive or sum(counts) != sum(method.choices(arch)[0])
  for function in (method.execution(counts), method.training(counts)):
    np.testing.assert_allclose(logits_of(arch, params, images, function), dense, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTINCT)
def test_with_nothing_taken_away_it_is_the_dense_network(images, name):
  method, arch, params, _ = prepared(name)
  assert_dense_with_nothing_taken_away(method, arch, params, images)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tome", "evit", "top_k", "dynamicvit"])
def test_it_equals_its_definition(images, name):
  """The oracles protect both tokens, as the authors' code of each does."""
  method, arch, params, counts = prepared(name)
  rules = {
    "tome": lambda: {"between": method_oracles.tome(counts[0], prefix=2)},
    "evit": lambda: {"between": method_oracles.evit([1, 2, 3], counts, prefix=2)},
    "top_k": lambda: {"before": method_oracles.top_k((2, 3, 4), counts, "paper", prefix=2)},
    "dynamicvit": lambda: {
      "before": method_oracles.top_k((1, 2, 3), counts, "attention", prefix=2)
    },
  }
  ours = logits_of(arch, params, images, method.execution(counts))
  np.testing.assert_allclose(ours, by_oracle(arch, params, images, **rules[name]()), atol=3e-5)


@pytest.mark.parametrize("n", [16, 17])
def test_nothing_is_merged_with_the_tokens_before_the_patches(n):
  """However alike, and though most of the others are merged, block after block."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((3, n, 6)), jnp.float32)
  sizes, first = jnp.ones((3, n)), x[:, :2]
  merge = jax.jit(merge_pairs, static_argnums=3, static_argnames="prefix")
  while (r := (x.shape[1] - 2) // 2) > 0:
    keys = rng.standard_normal((3, x.shape[1], 6))
    keys[:, 2::3] = keys[:, 1:2]  # no token is more like any other than some are like the second
    x, sizes = merge(x, sizes, jnp.asarray(keys, jnp.float32), r, prefix=2)
    np.testing.assert_array_equal(x[:, :2], first)
    assert (sizes[:, :2] == 1).all()
    np.testing.assert_allclose(sizes.sum(axis=1), n)
