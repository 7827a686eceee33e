import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asvit_jax import vit
from asvit_jax.network import Network
from asvit_jax.sparsity.executions import in_place, packed
from asvit_jax.sparsity.executions.fixed_count import fixed_count
from asvit_jax.sparsity.pruning import AttentionCache, Stage

pytestmark = pytest.mark.optimized

STAGES = 3


# First images at once, then in groups of, with widths so far apart: fitted to 17 tokens.
LADDER = 6
GROUPINGS = [(None, None), (3, 2), (1, 1), (6, 3)]


def program(arch, params, images, first=None, group=None):
  return packed.packed(vit.model(arch, params), images, first, group, LADDER)


run_packed = jax.jit(program, static_argnums=(0, 3, 4))


def assert_same(packed, masked, rows=slice(None)):
  np.testing.assert_array_equal(packed.keep, masked.keep[rows])
  np.testing.assert_array_equal(packed.kept, masked.kept[rows])
  np.testing.assert_allclose(packed.logits, masked.logits[rows], atol=2e-5)


@pytest.mark.parametrize("images_in_batch", [1, 2, 6])
def test_packed_equals_masked(pruned, images_in_batch):
  arch, params, images = pruned
  masked = tiny.run_masked(arch, params, images)
  ours = run_packed(arch, params, images[:images_in_batch])
  assert_same(ours, masked, slice(images_in_batch))


@pytest.mark.parametrize(("first", "group"), GROUPINGS[1:])
@pytest.mark.parametrize("reduction", tiny.few(("drop", "merge"), "merge"))
def test_groups_of_images_give_what_masked_gives(pruned, reduction, first, group):
  arch, params, images = pruned
  arch = dataclasses.replace(arch, reduction=reduction)
  masked = tiny.run_masked(arch, params, images)
  assert_same(run_packed(arch, params, images, first, group), masked)
  order = np.asarray(masked.kept)
  assert len({tuple(np.argsort(counts)) for counts in order.T}) > 1  # sorted anew at each stage
  assert len(np.unique(np.asarray(masked.kept), axis=0)) > 2  # images keep different numbers


@pytest.mark.slow
@pytest.mark.parametrize("reduction", tiny.few(("drop", "merge"), "merge"))
def test_the_kept_tokens_come_with_the_places_they_had(pruned, reduction):
  arch, params, images = pruned
  arch = dataclasses.replace(arch, reduction=reduction)
  network = Network(arch, params)
  masked = network(images, "masked")
  ours = jax.jit(lambda p, x: packed.packed(vit.model(arch, p), x, 3, 2, LADDER, tokens=True))(
    params, images
  )
  assert_same(ours, masked)
  for i, kept in enumerate(np.asarray(masked.keep[:, -1])):
    positions = ours.positions[i, : 1 + int(kept.sum())]
    np.testing.assert_array_equal(positions, np.flatnonzero([1, *kept]))
    np.testing.assert_allclose(
      ours.tokens[i, : len(positions)], masked.tokens[i, positions], atol=2e-5
    )
    assert (ours.positions[i, len(positions) :] == -1).all()
    np.testing.assert_array_equal(masked.positions[i], np.where([1, *kept], range(17), -1))
  assert network(images[:2], tokens=True).tokens.shape == masked.tokens[:2].shape
  assert network(images[:2]).tokens is None


@pytest.mark.parametrize("images_in_batch", [1, 6])
@pytest.mark.parametrize("threshold", [-1.0, 1.0], ids=["every token", "the class token alone"])
def test_packed_equals_masked_when_it_keeps(pruned, threshold, images_in_batch):
  arch, params, images = pruned
  params = params | {"thresholds": jnp.full(STAGES, threshold)}
  ours = run_packed(arch, params, images[:images_in_batch])
  assert_same(ours, tiny.run_masked(arch, params, images), slice(images_in_batch))
  assert (ours.kept == (arch.patches if threshold < 0 else 0)).all()


def test_a_batch_mate_never_changes_an_image(pruned):
  arch, params, images = pruned
  easy, hard = np.zeros_like(images), 5 * tiny.images(arch, len(images), seed=9)
  alone = run_packed(arch, params, images[:1])
  for mates in (easy, hard, images[::-1]):
    for place in (0, 3, 5):
      batch = mates.copy()
      batch[place] = images[0]
      outputs = run_packed(arch, params, batch, 3, 2)
      np.testing.assert_array_equal(outputs.keep[place], alone.keep[0])
      np.testing.assert_allclose(outputs.logits[place], alone.logits[0], atol=2e-5)


MIXTURES = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COUNTS = st.lists(st.integers(0, 16), min_size=4, max_size=4)


@pytest.mark.parametrize("reduction", tiny.few(("drop", "merge"), "drop"))
@settings(MIXTURES, max_examples=12)
@given(COUNTS, st.integers(0, 2**31))
def test_any_mixture_of_full_and_empty_images_runs_as_each_alone(pruned, reduction, counts, seed):
  check_mixture(pruned, reduction, counts, seed)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["drop", "merge"])
@settings(MIXTURES, max_examples=60)
@given(COUNTS, st.integers(0, 2**31))
def test_many_mixtures_do_so(pruned, reduction, counts, seed):
  check_mixture(pruned, reduction, counts, seed)


def check_mixture(pruned, reduction, counts, seed):
  # Scores made up so that the images keep exactly these numbers of patches: all, none, anything.
  arch, params, _ = pruned
  arch = dataclasses.replace(arch, reduction=reduction)
  rng = np.random.default_rng(seed)
  rank = rng.permuted(np.tile(np.arange(arch.patches), (len(counts), 1)), axis=1)
  scores = np.where(rank < np.array(counts)[:, None], 1.0, -2.0)
  scores = np.pad(scores, ((0, 0), (1, 0))).astype(np.float32)
  x = rng.standard_normal((len(counts), 1 + arch.patches, arch.width)).astype(np.float32)
  # A first threshold of zero decides by the scores above; the later ones keep what is left.
  params = params | {"thresholds": jnp.asarray([0.0, -1.0, -1.0])}
  for group in (None, 2):
    together = run_from_first_stage(arch, params, x, scores, group)
    np.testing.assert_array_equal(together.kept, np.repeat(np.array(counts)[:, None], 3, axis=1))
    for i in range(len(counts)):
      alone = run_from_first_stage(arch, params, x[i : i + 1], scores[i : i + 1])
      np.testing.assert_array_equal(together.keep[i], alone.keep[0])
      np.testing.assert_allclose(together.logits[i], alone.logits[0], atol=3e-5)


@functools.partial(jax.jit, static_argnums=(0, 4))
def run_from_first_stage(arch, params, x, scores, group=None):
  model = vit.model(arch, params)
  sizes = jnp.ones(x.shape[:2]) if arch.reduction == "merge" else None
  cache = AttentionCache(scores, x)  # keys: the tokens
  stage = Stage(x, sizes, jnp.ones(x.shape[:2], bool), cache)
  return packed.finish_packed(model, packed.apply_stage(model, 0, stage), group, LADDER)


def test_packed_is_one_program_for_all_images_of_a_batch_size(pruned):
  arch, params, images = pruned
  traces = []

  @jax.jit
  def counted(params, images):
    traces.append(None)
    return program(arch, params, images).kept

  kept = [counted(params | {"thresholds": jnp.full(STAGES, t)}, images) for t in (-1.0, 0.05, 1.0)]
  assert len({int(k.sum()) for k in kept}) == 3
  assert len(traces) == 1


def test_a_ladder_ends_with_every_token():
  assert packed.choose_widths(197, 40) == [40, 80, 120, 160, 197]
  assert packed.choose_widths(197, 64) == [64, 128, 197]  # none that is hardly less than the last
  assert packed.choose_widths(16, 16) == packed.choose_widths(16, 99) == [16]
  assert packed.choose_widths(1, 16) == [1]


@pytest.mark.parametrize("top", [17, 65, 197, 577, 2305])
def test_a_ladder_has_few_rungs_and_fewer_where_the_mean_is_known(top):
  whole = packed.choose_widths(top, 16)
  assert len(whole) <= packed.MOST_WIDTHS
  for mean in (1, top // 3, top - 1, top):
    near = packed.choose_widths(top, 16, mean)
    assert set(near) <= set(whole)
    assert near[-1] == top
    # An image that keeps the mean runs as it would with all of them.
    assert min(w for w in near if w >= mean) == min(w for w in whole if w >= mean)


@pytest.mark.parametrize("longest", [1, 6, 7, 12, 13, 16, 17])
def test_a_group_runs_at_the_least_width_that_holds_its_longest_image(pruned, longest):
  """Read from the program: the branch that its index takes, and how many tokens that multiplies."""
  arch, params, images = pruned
  keep = np.arange(17) < np.array([1, longest])[:, None]
  model = vit.model(arch, params)
  rows = packed.PackedTokens(model.embed(images[:2]), None, jnp.tile(jnp.arange(17), (2, 1)), keep)
  at_width = functools.partial(packed._run_to_next_stage, model, 0)
  run = functools.partial(packed._run_group, model, at_width, packed.choose_widths(17, LADDER))
  program = jax.make_jaxpr(run)(rows, jnp.arange(2))
  switches = [eqn for eqn in program.eqns if len(eqn.params.get("branches", ())) == 3]
  (switch,) = switches  # between 6, 12 and 17 tokens
  chosen = program.jaxpr.replace(outvars=switch.invars[:1])
  (rung,) = jax.core.eval_jaxpr(chosen, program.consts, *jax.tree.leaves((rows, jnp.arange(2))))
  branch = switch.params["branches"][int(rung)]
  widths = {shape[1] for shape in multiplied(branch.jaxpr) if shape[2:] == (arch.width,)}
  assert widths == {min(w for w in (6, 12, 17) if w >= longest)}


def multiplied(program):
  """The shapes of all left factors of matrix products in a program, and in those it calls."""
  for eqn in program.eqns:
    if eqn.primitive.name == "dot_general":
      yield eqn.invars[0].aval.shape
    for value in eqn.params.values():
      inner = getattr(value, "jaxpr", None)
      if inner is not None:
        yield from multiplied(inner if hasattr(inner, "eqns") else inner.jaxpr)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["drop", "merge"])
def test_bfloat16_keeps_what_masked_keeps(pruned, reduction):
  arch, params, images = pruned
  arch = dataclasses.replace(arch, reduction=reduction)

  def run(execution, *arguments):
    def forward(p, x):
      return execution(vit.model(arch, p, dtype=jnp.bfloat16), x, *arguments)

    return jax.jit(forward)(params, images)

  masked, ours = run(in_place.masked), run(packed.packed, 3, 2, LADDER)
  # The order of summation differs, and bfloat16 has three digits: a score near its threshold may
  # go either way, but hardly ever.
  assert (np.asarray(ours.keep) != np.asarray(masked.keep)).mean() < 0.02
  assert ours.logits.dtype == jnp.float32
  same = (np.asarray(ours.keep) == np.asarray(masked.keep)).all(axis=(1, 2))
  assert same.sum() >= 3
  np.testing.assert_allclose(ours.logits[same], masked.logits[same], atol=0.15)


def test_a_fixed_count_of_all_patches_is_the_dense_network(pruned):
  arch, params, images = pruned
  everything = (arch.patches,) * STAGES
  fixed = jax.jit(lambda p, x: fixed_count(vit.model(arch, p), x, everything).logits)(
    params, images
  )
  np.testing.assert_allclose(fixed, tiny.run_dense(arch, params, images).logits, atol=2e-5)


def test_a_fixed_count_keeps_the_highest_scores(pruned):
  arch, params, images = pruned
  masked = tiny.run_masked(arch, params, images[:1])
  counts = tuple(int(k) for k in masked.kept[0])  # what thresholds keep of one image are its best
  fixed = jax.jit(lambda p, x: fixed_count(vit.model(arch, p), x, counts).logits)(
    params, images[:1]
  )
  np.testing.assert_allclose(fixed, masked.logits, atol=2e-5)


@pytest.mark.parametrize("counts", [(), (9, 5), (9, 5, 3, 2)])
def test_a_fixed_count_takes_one_for_each_stage(pruned, counts):
  arch, params, images = pruned
  with pytest.raises(ValueError, match=r"argument 2 is (shorter|longer) than argument 1"):
    jax.eval_shape(lambda p, x: fixed_count(vit.model(arch, p), x, counts), params, images)


@pytest.mark.parametrize("inside", [False, True])
def test_a_fixed_count_without_stages_is_the_dense_network(pruned, inside):
  arch, params, images = pruned
  arch = dataclasses.replace(arch, prune_before=(), stage_weights=(), prune_inside=inside)
  params = {name: value for name, value in params.items() if name != "thresholds"}
  fixed = jax.jit(lambda p, x: fixed_count(vit.model(arch, p), x, ()).logits)(params, images)
  np.testing.assert_allclose(fixed, tiny.run_dense(arch, params, images).logits, atol=2e-5)
