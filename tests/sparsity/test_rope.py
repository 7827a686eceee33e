"""Rotary positions, SwiGLU and normalised queries and keys, pruned and merged."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.comparison.methods import METHODS
from asvit_jax.core.errors import InputError
from asvit_jax.pacing import table
from asvit_jax.sparsity import complexity
from asvit_jax.sparsity.executions import fixed_count, in_place, packed, pieces
from asvit_jax.vit.rope import Rope

# 3 x 5 patches, heads of 8 channels.
SHAPE = dict(image_size=(24, 40), depth=4, prune_before=(1, 3))
DINO = tiny.arch(**SHAPE, **tiny.DINOV3, dist_token=True, dist_head=True)
EVA = tiny.arch(**SHAPE, **tiny.EVA02, mlp_ratio=2, rope_grid=(4, 4))


@pytest.fixture(scope="module", params=[DINO, EVA], ids=["dinov3", "eva02"])
def network(request):
  arch = request.param
  images = tiny.images(arch, 5)
  params = tiny.with_thresholds(arch, tiny.params(arch), images, (0.7, 0.4))
  return arch, params, images, tiny.run_masked(arch, params, images)


@pytest.mark.parametrize("kind", ["dinov3", "eva02"])
def test_rotating_is_a_product_of_complex_numbers(kind):
  arch = DINO if kind == "dinov3" else EVA
  rope, rng = Rope.of(arch), np.random.default_rng(0)
  prefix, n, c = arch.prefix_tokens, arch.patches, 8
  x = rng.standard_normal((prefix + n, 3, c))
  ours = np.asarray(rope.rotate(jnp.asarray(x, jnp.float32), *rope.table()))
  np.testing.assert_array_equal(ours[:prefix], x[:prefix].astype(np.float32))
  for row in range(3):
    for column in range(5):
      i = prefix + 5 * row + column
      if kind == "dinov3":
        centre = np.array([(row + 0.5) / 3, (column + 0.5) / 5]) * 2 - 1
        angles = 2 * np.pi * np.concatenate([place / 100 ** np.array([0, 0.5]) for place in centre])
        z = x[i, :, :4] + 1j * x[i, :, 4:]
      else:
        place = row * 4 / 3, column * 4 / 5
        angles = np.concatenate([p / 10000 ** np.array([0, 0.5]) for p in place])
        z = x[i, :, ::2] + 1j * x[i, :, 1::2]
      z = z * np.exp(1j * angles)
      expected = np.stack([z.real, z.imag], axis=1 if kind == "dinov3" else 2).reshape(3, c)
      np.testing.assert_allclose(ours[i], expected, atol=1e-5)


@pytest.mark.slow
def test_the_prediction_depends_on_where_patches_are(network):
  """Without a position embedding, only the rotations tell one order of the patches from another."""
  arch, params, images, _ = network
  arch = dataclasses.replace(arch, pos_embed=False)
  params = {k: v for k, v in params.items() if k != "pos_embed"}
  moved = images.copy()
  moved[:, :8], moved[:, 16:] = images[:, 16:], images[:, :8]  # the first and last row of patches
  logits = [tiny.run_dense(arch, params, x).logits for x in (images, moved)]
  assert np.abs(logits[0] - logits[1]).max() > 0.01
  arch = dataclasses.replace(arch, rope="", rope_base=0, rope_grid=())
  logits = [tiny.run_dense(arch, params, x).logits for x in (images, moved)]
  np.testing.assert_allclose(*logits, atol=1e-5)


def test_packed_gives_what_masked_gives_whatever_the_batch(network):
  arch, params, images, masked = network
  run = jax.jit(lambda x: packed.packed(vit.model(arch, params), x, step=4))
  ours = run(images)
  assert len(np.unique(np.asarray(masked.kept), axis=0)) > 2
  np.testing.assert_array_equal(ours.keep, masked.keep)
  np.testing.assert_allclose(ours.logits, masked.logits, atol=1e-5)
  others = np.concatenate([images[:1], tiny.images(arch, 4, seed=9)])
  np.testing.assert_allclose(run(others).logits[0], ours.logits[0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [dict(rope_merged="kept"), dict(reduction="merge_tokens")])
def test_another_reduction_packs_the_same_too(network, changes):
  arch, params, images, _ = network
  arch = dataclasses.replace(arch, **dict(reduction="merge") | changes)
  masked = tiny.run_masked(arch, params, images)
  ours = jax.jit(lambda x: packed.packed(vit.model(arch, params), x, step=8))(images)
  np.testing.assert_array_equal(ours.keep, masked.keep)
  np.testing.assert_allclose(ours.logits, masked.logits, atol=1e-5)


def test_pieces_and_fixed_give_what_masked_gives(network):
  arch, params, images, masked = network
  model = vit.model(arch, params)
  kept = np.asarray(masked.kept[0]).astype(int)
  scored = jax.jit(lambda x: pieces.start(model, x))(images[:1])
  go_on = jax.jit(lambda scored, rows: pieces.go_on(model, 0, scored, rows))
  scored = go_on(scored, np.flatnonzero(scored.keep[0]))
  finish = jax.jit(lambda scored, rows: pieces.finish(model, scored, rows).logits)
  logits = finish(scored, np.flatnonzero(scored.keep[0]))
  np.testing.assert_allclose(logits, masked.logits[:1], atol=1e-5)
  fixed = jax.jit(lambda x: fixed_count.fixed_count(model, x, tuple(kept)))(images)
  np.testing.assert_array_equal(fixed.keep[0], masked.keep[0])
  np.testing.assert_allclose(fixed.logits[0], masked.logits[0], atol=1e-5)


def test_a_merged_token_is_at_the_mean_place_of_its_patches(network):
  arch, params, images, _ = network
  arch = dataclasses.replace(arch, reduction="merge")
  pruning, model = packed.Pruning.of(arch), vit.model(arch, params)
  stage = jax.jit(lambda x: in_place.before_first_stage(model, x))(images)
  keep, similarity = in_place.tokens_above(model, 0, stage)
  keep, prefix = np.asarray(keep, np.float32), arch.prefix_tokens
  into = np.asarray(pruning.destinations(stage, keep, similarity))
  moved = np.asarray(pruning.moved(stage, keep, similarity))
  places = Rope.of(arch).places()
  for i in range(len(images)):
    np.testing.assert_array_equal(moved[i, :prefix], 0)
    for token in np.flatnonzero(keep[i, prefix:]) + prefix:
      expected = places[into[i] == token].mean(axis=0)
      np.testing.assert_allclose(moved[i, token], expected, atol=1e-6)
  assert (np.abs(moved - places)[keep > 0] > 0.1).any()
  # "kept", and dropping, need no places: the position tells them.
  for other in (dict(rope_merged="kept"), dict(reduction="drop")):
    other = packed.Pruning.of(dataclasses.replace(arch, **other))
    assert other.moved(stage, keep, similarity) is None


def test_the_place_of_a_token_is_that_of_its_position():
  """Queries and keys are rotated by it; keys are compared as they are."""
  pruning, rope = packed.Pruning.of(EVA), Rope.of(EVA)
  q, k, v = np.random.default_rng(0).standard_normal((3, 2, 5, 3, 8)).astype(np.float32)
  position = np.array([[0, 3, 7, 8, 15], [0, 1, 2, 3, 4]])
  cosines, sines = (table[position] for table in rope.table())
  expected, _ = pruning.attention.dense(*(rope.rotate(a, cosines, sines) for a in (q, k)), v)
  context, cache = pruning.dense(q, k, v, rotation=pruning.rotation(position))
  np.testing.assert_allclose(context, expected, atol=1e-6)
  np.testing.assert_allclose(cache.keys, k.mean(axis=2), atol=1e-6)  # compared as they are


def test_gradients_are_finite_and_reach_every_parameter(network):
  arch, params, images, _ = network

  def loss(params):
    outputs = in_place.masked(vit.model(arch, params), images)
    return (outputs.logits**2).mean() + outputs.kept.mean()

  grads = jax.jit(jax.grad(loss))(params)
  assert all(bool(jnp.isfinite(g).all()) and bool(jnp.any(g)) for g in jax.tree.leaves(grads))


def test_parts_are_timed_at_any_number_of_tokens():
  network = tiny.network(dataclasses.replace(EVA, reduction="merge_tokens", score="merge_cost"))
  for part, (function, arguments) in table.programs(network, 4, "cpu").items():
    assert jax.tree.leaves(jax.eval_shape(function, *arguments)), part


def test_bfloat16_rotates_in_float32():
  rope = Rope.of(DINO)
  x = np.random.default_rng(0).standard_normal((17, 3, 8)).astype(np.float32)
  narrow = jnp.asarray(x, jnp.bfloat16)
  expected = rope.rotate(narrow.astype(jnp.float32), *rope.table()).astype(jnp.bfloat16)
  np.testing.assert_array_equal(rope.rotate(narrow, *rope.table()), expected)


def test_gmacs_count_three_products_of_a_swiglu():
  n, d, m = EVA.patches, EVA.width, EVA.hidden
  block = n * d * (4 * d + 3 * m) + 2 * d * n * n
  stem = n * 8 * 8 * 3 * d
  np.testing.assert_allclose(complexity.dense_gmacs(EVA), (4 * block + stem) / 1e9, rtol=1e-6)
  plain = dataclasses.replace(EVA, swiglu=False)
  np.testing.assert_allclose(
    complexity.dense_gmacs(EVA) - complexity.dense_gmacs(plain), 4e-9 * n * d * m, rtol=1e-6
  )
  count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(vit.specs(EVA)["blocks"][0]["mlp"]))
  assert count == 3 * d * m + 2 * m + d + 2 * m  # weights, biases, norm


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (dict(rope="rope"), "model.rope 'rope' is not valid: expected one of '', 'dinov3', 'eva02'"),
    (dict(rope_base=50.0), "model.rope_base 50 and .* without rotary positions: set model.rope"),
    (dict(rope="dinov3", heads=4), "4 heads: rotary positions .* multiple of 4 channels .* not 6"),
    (dict(rope="dinov3", rope_base=0.5), "model.rope_base 0.5 is not valid: expected at least 1"),
    (dict(rope="dinov3", rope_grid=(4, 4)), r"model.rope_grid \(4, 4\) of model.rope 'dinov3'"),
    (dict(rope="eva02", rope_grid=(4,)), r"model.rope_grid \(4,\) .* rows and columns"),
  ],
)
def test_rotary_positions_that_cannot_be_are_refused(changes, said):
  with pytest.raises(InputError, match=said):
    tiny.arch(**changes)


@pytest.mark.parametrize("name", ["tome", "evit"])
def test_methods_that_mix_tokens_without_their_places_refuse_them(name):
  with pytest.raises(InputError, match=rf"method {name} of a network .*model\.rope 'dinov3'"):
    METHODS[name].solve(DINO, 0.8)


def test_a_base_that_is_not_given_is_the_published_one():
  assert (tiny.arch(rope="dinov3").rope_base, tiny.arch(rope="eva02").rope_base) == (100, 10000)
  assert vit.Architecture.from_json(EVA.to_json(), "test") == EVA
  assert not {"rope", "rope_base", "swiglu", "pos_embed"} & tiny.arch().to_json().keys()
