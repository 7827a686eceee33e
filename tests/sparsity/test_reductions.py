import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.sparsity.attentions import ATTENTIONS
from asvit_jax.sparsity.executions import in_place, packed
from asvit_jax.sparsity.pruning import AttentionCache, Pruning, Stage
from asvit_jax.sparsity.reductions import REDUCTIONS
from asvit_jax.sparsity.scores import SCORES, cosine_similarity, uses_similarity


class Share:
  """A reduction for tests: every kept token takes over the mean of those that go."""

  changes_tokens = True
  uses_keys = False

  def __call__(self, x, sizes, present, keep, keys):
    goes = (present * (1.0 - keep))[..., None]
    mean = (goes * x).sum(axis=1, keepdims=True) / jnp.maximum(goes.sum(axis=1, keepdims=True), 1)
    return x + 0.5 * mean, sizes * 1.5


share = Share()
SOFTMAX, CLASS_ATTENTION = ATTENTIONS["softmax"], SCORES["class_attention"]
NAMES = [*REDUCTIONS, "test_reductions:share"]


@pytest.fixture(scope="module", params=tiny.few(NAMES, "merge", "test_reductions:share"))
def network(request, pruned):
  """(arch, params, images) of the network of `pruned`, with every reduction."""
  arch, params, images = pruned
  arch = dataclasses.replace(arch, reduction=request.param)
  return arch, tiny.with_thresholds(arch, params, images, (0.7, 0.5, 0.3)), images


@functools.partial(jax.jit, static_argnums=0)
def run_packed(arch, params, images):
  """In groups, at one of a few widths."""
  group = max(1, len(images) // 3)
  return packed.packed(vit.model(arch, params), images, group=group, step=6)


@pytest.mark.optimized
@pytest.mark.parametrize("images_in_batch", tiny.few((1, 6), 6))
def test_packed_equals_masked(network, images_in_batch):
  arch, params, images = network
  masked = tiny.run_masked(arch, params, images)
  ours = run_packed(arch, params, images[:images_in_batch])
  np.testing.assert_array_equal(ours.keep, masked.keep[:images_in_batch])
  np.testing.assert_allclose(ours.logits, masked.logits[:images_in_batch], atol=2e-5)
  assert len(np.unique(np.asarray(masked.kept), axis=0)) > 2


def test_a_batch_mate_never_changes_an_image(network):
  arch, params, images = network
  mates = 5 * tiny.images(arch, len(images), seed=9)
  ours, batch = tiny.run_masked(arch, params, images), mates.copy()
  batch[2] = images[2]
  outputs = tiny.run_masked(arch, params, batch)
  np.testing.assert_array_equal(outputs.keep[2], ours.keep[2])
  np.testing.assert_allclose(outputs.logits[2], ours.logits[2], atol=1e-5)


@pytest.mark.parametrize("images_in_batch", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_a_second_head_sees_the_merged_tokens_packed_as_masked(images_in_batch):
  arch = tiny.arch(depth=4, prune_before=(1, 2, 3), reduction="merge", **tiny.LV)
  images = tiny.images(arch, 5)
  params = tiny.with_thresholds(arch, tiny.params(arch), images, (0.7, 0.5, 0.3))
  masked = tiny.run_masked(arch, params, images)
  ours = run_packed(arch, params, images[:images_in_batch])
  np.testing.assert_array_equal(ours.keep, masked.keep[:images_in_batch])
  np.testing.assert_allclose(ours.logits, masked.logits[:images_in_batch], atol=5e-5)


NOVELTY = {"reduction": "merge", "score": "attention_novelty", "score_exponents": (0.5, 1.0)}
COST = {
  "reduction": "merge_tokens",
  "score": "merge_cost",
  "score_exponents": (0.5, 1.0, 0.5, 0.5),
}


@pytest.mark.parametrize(
  "changes",
  [
    pytest.param(NOVELTY, marks=pytest.mark.slow),
    COST | {"prune_inside": True},
    pytest.param(COST | {"count_multiple": 4}, marks=pytest.mark.slow),
    pytest.param({"count_multiple": 5, "dist_token": True}, marks=pytest.mark.slow),
    pytest.param(COST | {"dist_token": True}, marks=pytest.mark.slow),
    pytest.param(NOVELTY | {"count_multiple": 3}, marks=pytest.mark.slow),
    pytest.param(COST, marks=pytest.mark.slow),
    pytest.param({"prune_inside": True}, marks=pytest.mark.slow),
  ],
)
def test_scores_that_compare_decide_packed_as_masked(pruned, changes):
  arch, params, images = pruned
  arch = dataclasses.replace(arch, **changes)
  params = tiny.params(arch) if arch.dist_token else params
  params = tiny.with_thresholds(arch, params, images, (0.7, 0.5, 0.3))
  masked = tiny.run_masked(arch, params, images)
  whole = arch.prefix_tokens + arch.patches
  counts = arch.prefix_tokens + np.asarray(masked.kept)
  assert ((counts % arch.count_multiple == 0) | (counts == whole)).all()
  assert len(np.unique(counts)) > 2
  for count in (1, 6):
    ours = run_packed(arch, params, images[:count])
    np.testing.assert_array_equal(ours.keep, masked.keep[:count])
    np.testing.assert_allclose(ours.logits, masked.logits[:count], atol=5e-5)


def test_with_everything_kept_nothing_is_changed(network):
  arch, params, images = network
  everything = tiny.run_masked(arch, params | {"thresholds": -jnp.ones(3)}, images)
  dense = tiny.run_dense(arch, params, images)
  np.testing.assert_allclose(everything.logits, dense.logits, atol=1e-5)


def test_gradients_reach_thresholds_and_stay_finite(network):
  arch, params, images = network

  @jax.jit
  @jax.grad
  def grads(params):
    return (in_place.masked(vit.model(arch, params), images).logits ** 2).sum()

  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads(params)))


def tokens(seed=0, b=3, n=9):
  """(x, sizes, present, keep, keys) at a stage, the class token in all."""
  rng = np.random.default_rng(seed)
  x = jnp.asarray(rng.standard_normal((b, n, 4)), jnp.float32)
  present = jnp.asarray(rng.random((b, n)) < 0.8, jnp.float32).at[:, 0].set(1)
  keep = (present * (rng.random((b, n)) < 0.5)).at[:, 0].set(1)
  sizes = jnp.asarray(rng.integers(1, 5, (b, n)), jnp.float32).at[:, 0].set(1)
  return x, sizes, present, keep, jnp.asarray(rng.standard_normal((b, n, 6)), jnp.float32)


def as_called(name, given):
  """What `Pruning` hands to a reduction: of some similarities, not keys."""
  if not uses_similarity(REDUCTIONS[name]):
    return given
  return (*given[:4], cosine_similarity(given[4]))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_reduced_as_if_it_were_alone(name):
  given = as_called(name, tokens())
  reduced, sizes = REDUCTIONS[name](*given)
  assert (reduced.shape, reduced.dtype) == (given[0].shape, given[0].dtype)
  alone = REDUCTIONS[name](*(x[1:2] for x in given))
  np.testing.assert_allclose(reduced[1:2], alone[0], rtol=1e-6)
  np.testing.assert_allclose(sizes[1:2], alone[1], rtol=1e-6)
  if not REDUCTIONS[name].changes_tokens:
    np.testing.assert_array_equal(reduced, given[0])
    np.testing.assert_array_equal(sizes, given[1])


def merged_by_hand(x, sizes, present, keep, keys):
  """One image, token by token."""
  x, sizes, keys = (np.asarray(a, np.float64) for a in (x, sizes, keys))
  kept = [i for i in range(1, len(x)) if keep[i]]
  mass, total = sizes[:, None] * x, sizes.copy()
  for j in range(1, len(x)):
    if present[j] and not keep[j] and kept:
      cosines = [
        keys[i] @ keys[j] / np.linalg.norm(keys[i]) / np.linalg.norm(keys[j]) for i in kept
      ]
      to = kept[int(np.argmax(cosines))]
      mass[to] += sizes[j] * x[j]
      total[to] += sizes[j]
  return mass / total[:, None], total


@pytest.mark.parametrize("name", ["merge", "merge_tokens"])
@pytest.mark.parametrize("seed", range(5))
def test_merging_by_hand(seed, name):
  given = tokens(seed)
  if name == "merge_tokens":
    given = (*given[:4], given[0])  # tokens are their own keys
  given = (*given[:3], given[3].at[2, 1:].set(0), given[4])  # nothing takes what goes
  reduced, sizes = REDUCTIONS[name](*as_called(name, given))
  for i in range(3):
    x, total = merged_by_hand(*(a[i] for a in given))
    kept = np.asarray(given[3][i]) > 0
    np.testing.assert_allclose(reduced[i][kept], x[kept], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sizes[i][kept], total[kept], rtol=1e-6)
  np.testing.assert_array_equal(reduced[:, 0], given[0][:, 0])  # the class token takes nothing
  before, after = ((s * m).sum(axis=1) for s, m in ((given[1], given[2]), (sizes, given[3])))
  np.testing.assert_allclose(after[:2], before[:2])  # no patch is lost


@pytest.mark.parametrize("name", ["drop", "merge", "merge_tokens", "test_reductions:share"])
@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.parametrize("gone", tiny.few((None, 5), 5))
def test_compacted_tokens_are_the_reduced_ones_that_are_kept(name, prefix, gone):
  x, sizes, present, keep, keys = tokens()
  if gone:  # as many of every image
    present, keep = jnp.ones_like(present), jnp.ones_like(keep).at[:, [2, 3, 5, 6, 8]].set(0)
  before = jnp.ones((len(x), prefix - 1))
  present, keep = (jnp.concatenate([before, a], axis=1) for a in (present, keep))
  x, keys = (jnp.concatenate([a[:, : prefix - 1], a], axis=1) for a in (x, keys))
  sizes = jnp.concatenate([before, sizes], axis=1)
  pruning = Pruning(SOFTMAX, CLASS_ATTENTION, REDUCTIONS[name], prefix_tokens=prefix)
  stage = Stage(x, sizes if pruning.merges else None, present, AttentionCache(None, keys))
  reduced, total = pruning.reduce(stage, keep)
  n = keep.shape[1]
  source = np.full((len(x), n - (gone or 1)), n)  # narrower than what came
  for i, mask in enumerate(np.asarray(keep)):
    source[i, : int(mask.sum())] = np.flatnonzero(mask)
  left = jnp.argsort(keep, axis=1)[:, :gone] if gone else None
  compact, compact_sizes = pruning.compact(stage, keep, jnp.asarray(source), gone=left)
  for i, at in enumerate(source):
    at = at[at < n]
    np.testing.assert_allclose(compact[i, : len(at)], reduced[i, at], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(compact[i, len(at) :], 0)
    if pruning.merges:
      np.testing.assert_allclose(compact_sizes[i, : len(at)], total[i, at], rtol=1e-6)
      np.testing.assert_array_equal(compact_sizes[i, len(at) :], 1)


def test_sizes_count_in_attention(pruned):
  # A merged token weighs as its members did: without the log of its size it would weigh as one.
  pruning = Pruning.of(dataclasses.replace(pruned[0], reduction="merge"))
  rng = np.random.default_rng(0)
  q, k, v = (jnp.asarray(rng.standard_normal((1, 5, 3, 8)), jnp.float32) for _ in range(3))
  k, v = k.at[:, 4].set(k[:, 3]), v.at[:, 4].set(v[:, 3])  # two alike
  context, _ = pruning.dense(q, k, v)
  of_one, _ = pruning.dense(q[:, :4], k[:, :4], v[:, :4], jnp.asarray([[1.0, 1, 1, 2]]))
  np.testing.assert_allclose(of_one, context[:, :4], atol=1e-5)
  masked, _ = pruning.masked(
    q, k, v, jnp.asarray([[1.0, 1, 1, 1, 0]]), jnp.asarray([[1.0, 1, 1, 2, 7]])
  )
  np.testing.assert_allclose(masked[:, :4], context[:, :4], atol=1e-4)
  prefix, _ = pruning.prefix(q, k, v, jnp.asarray([4]), jnp.asarray([[1.0, 1, 1, 2, 0]]))
  np.testing.assert_allclose(prefix[:, :4], context[:, :4], atol=1e-5)


def test_a_reduction_that_changes_tokens_changes_the_prediction(pruned):
  # So that the tests above say something of how it is called.
  arch, params, images = pruned
  other = dataclasses.replace(arch, reduction="test_reductions:share")
  ours, dropped = (tiny.run_masked(a, params, images).logits for a in (other, arch))
  assert np.abs(ours - dropped).max() > 0.01


def test_rows_without_a_token_stay_finite_beside_images_with_more(network):
  """A short image's rows are made up where it runs beside a longer one than before."""
  arch, params, images = network
  model = vit.model(arch, params)
  stage = in_place.before_first_stage(model, images[:2])
  rows = packed.apply_stage(model, 0, stage)
  rows = rows._replace(keep=jnp.arange(17) < jnp.array([5, 17])[:, None])
  run_width = functools.partial(packed._run_to_next_stage, model, 0)
  apart = [packed._run_group(model, run_width, [6, 17], rows, jnp.array([i])) for i in range(2)]
  rows = jax.tree.map(lambda *parts: jnp.concatenate(parts), *apart)
  for _ in range(2):
    rows = rows._replace(keep=jnp.arange(17) < jnp.array([5, 17])[:, None])
    rows = packed._run_group(model, run_width, [17], rows, jnp.arange(2))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(rows))


@pytest.mark.slow
def test_a_stage_inside_a_block_spares_its_mlp_and_nothing_else(pruned):
  """Tokens go after the attention of the block before: as if its two halves were called by hand."""
  arch, params, images = pruned
  arch = dataclasses.replace(arch, prune_inside=True, prune_before=(3,))
  params = tiny.with_thresholds(arch, params | {"thresholds": jnp.zeros(1)}, images, (0.5,))
  masked = tiny.run_masked(arch, params, images)
  model, dense = vit.model(arch, params), in_place.Pruning.of(arch).dense
  for i, image in enumerate(images):
    x = model.embed(image[None])
    for block in model.blocks[:2]:
      x, _ = block(x, dense)
    x, cache = model.blocks[2].attended(x, dense)
    stays = cache.score[0, 1:] > model.thresholds[0]
    np.testing.assert_array_equal(masked.keep[i, 0], stays)
    x = model.blocks[2].fed_forward(x[:, np.concatenate([[0], 1 + np.flatnonzero(stays)])])
    for block in model.blocks[3:]:
      x, _ = block(x, dense)
    np.testing.assert_allclose(masked.logits[i], model.classify(x)[0], atol=2e-5)
  assert len(set(np.asarray(masked.kept)[:, 0].tolist())) > 1
