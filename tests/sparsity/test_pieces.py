"""One image in pieces, as exports run it, equals masked execution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.sparsity.executions import pieces

COUNT, SHARES = 2, (0.8, 0.6, 0.4)
KINDS = {
  "drop": {},
  "merge": dict(reduction="merge", score="attention_novelty"),
  "merge_tokens": dict(reduction="merge_tokens", score="merge_cost"),
  "two heads": dict(reduction="merge", dist_token=True, dist_head=True, layer_scale=True),
  "lv": tiny.LV,
  "inside": dict(prune_inside=True, count_multiple=4),
  "every block": dict(depth=4, prune_before=(1, 2, 3), reduction="merge"),
}


def run(arch, params, image):
  """`Outputs` of one normalised image, (1, h, w, 3), the runtime's part done by NumPy."""
  scored = piece(arch, "start")(params, image)
  for index in range(arch.stages - 1):
    scored = piece(arch, "go_on", index)(params, scored, _rows(scored))
  return piece(arch, "finish")(params, scored, _rows(scored))


@functools.cache
def piece(arch, name, index=None):
  """A piece, compiled for each number of rows, as a function of parameters and tokens."""

  def program(params, *tokens):
    model = vit.model(arch, params)
    if name == "go_on":
      return pieces.go_on(model, index, *tokens)
    return getattr(pieces, name)(model, *tokens, True)

  return jax.jit(program)


def _rows(scored):
  (rows,) = np.nonzero(np.asarray(scored.keep[0]))
  return jnp.asarray(rows, jnp.int32)


@pytest.mark.parametrize(
  ("kind", "shares"),
  tiny.few(
    [*((kind, SHARES) for kind in KINDS), ("merge", None), ("lv", None)],
    *(("drop", SHARES), ("two heads", SHARES), ("inside", SHARES), ("merge", None), ("lv", None)),
  ),
)
def test_equals_masked(kind, shares):
  arch = tiny.arch(**KINDS[kind])
  images = tiny.images(arch, COUNT)
  params = tiny.params(arch)
  if shares:
    params = tiny.with_thresholds(arch, params, images, shares)
  else:  # no patch is left after the last stage
    params = params | {"thresholds": jnp.asarray([0.0, 0.0, 1e6], jnp.float32)}
  expected = tiny.run_masked(arch, params, images)
  for i in range(COUNT):
    found = run(arch, params, images[i : i + 1])
    np.testing.assert_array_equal(found.kept[0], expected.kept[i])
    np.testing.assert_allclose(found.logits[0], expected.logits[i], atol=2e-5)
    np.testing.assert_array_equal(found.positions[0], expected.positions[i])
    np.testing.assert_array_equal(found.sources[0], expected.sources[i])
    there = np.asarray(found.positions[0]) >= 0
    np.testing.assert_allclose(found.tokens[0][there], expected.tokens[i][there], atol=1e-4)
    assert not np.any(found.tokens[0][~there])


def test_a_piece_computes_what_is_kept_alone():
  arch = tiny.arch(reduction="merge")
  params = tiny.params(arch) | {"thresholds": jnp.zeros(3)}
  scored = piece(arch, "start")(params, tiny.images(arch, 1))
  rows = jnp.asarray([0, 3, 5], jnp.int32)
  scored = scored._replace(keep=jnp.isin(jnp.arange(17), rows)[None])
  after = piece(arch, "go_on", 0)(params, scored, rows)
  assert {leaf.shape[:2] for leaf in jax.tree.leaves(after._replace(sources=None))} == {
    (1, 3)
  }  # also of `kept`, 3 stages
