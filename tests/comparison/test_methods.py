"""Every method against its paper, and what holds for all of them."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import method_oracles
import numpy as np
import pytest
import tiny

from asvit_jax import vit, weights
from asvit_jax.comparison import DEFAULT
from asvit_jax.comparison.methods import ALIASES, METHODS
from asvit_jax.comparison.methods.evit import fuse
from asvit_jax.comparison.methods.fixed import Random, number_of
from asvit_jax.comparison.methods.tome import merge_pairs, pairs
from asvit_jax.core.errors import InputError
from asvit_jax.sparsity import complexity
from asvit_jax.vit.layers import Block

NAMES = METHODS.names
DISTINCT = [name for name in NAMES if name not in ALIASES]  # the others are the very same objects
FIXED = [name for name in NAMES if not METHODS[name].adaptive]
PAPER = tiny.arch(depth=5)
MERGING = tiny.arch(
  depth=5,
  reduction="merge",
  score="attention_novelty",
  score_exponents=(0.5, 1.0),
  prune_before=(1, 3, 4),
)
SHARES = (0.7, 0.5, 0.3)

SOME = tiny.few(DISTINCT, "merge", "tome", "evit")  # of methods alike, one

pytestmark = pytest.mark.usefixtures("short_ladders")


@pytest.fixture(scope="module")
def images():
  return tiny.images(PAPER, 4)


@functools.cache
def prepared(name, budget=0.6, **changes):
  """(method, arch, params, counts) of a method on the tiny network."""
  method = METHODS[name]
  paper, merging = (dataclasses.replace(arch, **changes) for arch in (PAPER, MERGING))
  arch = method.architecture(paper, merging)
  params = tiny.params(PAPER if not changes else paper)
  images = tiny.images(arch, 4)
  params = tiny.with_thresholds(arch, params | {"thresholds": jnp.zeros(3)}, images, SHARES)
  return method, arch, params, method.solve(arch, budget)


def logits_of(arch, params, images, function):
  run = jax.jit(lambda params, images: function(vit.model(arch, params), images).logits)
  return np.asarray(run(params, images))


@functools.cache
def inference(name):
  """The compiled function (params, images) -> logits of `prepared(name)`."""
  method, arch, _, counts = prepared(name)
  run = method.execution(counts)
  return jax.jit(lambda params, images: run(vit.model(arch, params), images).logits)


def by_oracle(arch, params, images, **rules):
  tensors = {k: v for k, v in weights.to_timm(params).items() if "score_predictor" not in k}
  return [
    method_oracles.run(tensors, image, arch.heads, arch.norm_epsilon, **rules) for image in images
  ]


@pytest.mark.parametrize("r", [1, 2, 5])
def test_tome_equals_its_definition(images, r):
  method, arch, params, _ = prepared("tome")
  counts = pairs(arch, r)
  # 17 tokens in the first block; half of the others, at most, are merged.
  assert counts == {1: (1,) * 5, 2: (2,) * 5, 5: (5, 5, 3, 1, 1)}[r]
  ours = logits_of(arch, params, images, method.execution(counts))
  # The oracle also merges in the last block, which changes nothing.
  expected = by_oracle(arch, params, images, between=method_oracles.tome(r))
  np.testing.assert_allclose(ours, expected, atol=3e-5)
  other = logits_of(arch, params, images, method.execution(pairs(arch, r + 1)))
  assert np.abs(other - ours).max() > 1e-3


@pytest.mark.parametrize("n", [16, 17])
def test_pairs_are_merged_by_size_and_nothing_is_lost(n):
  rng = np.random.default_rng(0)
  x, keys = rng.standard_normal((2, 3, n, 6)).astype(np.float32)
  sizes = rng.integers(1, 6, (3, n)).astype(np.float32)
  sizes[:, 0] = 1
  r = (n - 1) // 2
  merged, total = merge_pairs(*map(jnp.asarray, (x, sizes, keys)), r)
  assert merged.shape == (3, n - r, 6)
  np.testing.assert_allclose(total.sum(axis=1), sizes.sum(axis=1))
  mass = (np.asarray(total)[..., None] * merged).sum(axis=1)
  np.testing.assert_allclose(mass, (sizes[..., None] * x).sum(axis=1), rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(merged[:, 0], x[:, 0])  # the class token
  assert (total[:, 0] == 1).all()
  for i in range(3):
    expected = method_oracles.tome(r)(0, x[i], sizes[i], keys[i], None)
    np.testing.assert_allclose(merged[i], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(total[i], expected[1])


@pytest.mark.parametrize("prefix", [0, 1, 2, 3, 4])
def test_tokens_before_the_patches_are_never_merged(prefix):
  rng = np.random.default_rng(0)
  x, keys = (rng.standard_normal((2, prefix + 7, 4)).astype(np.float32) for _ in range(2))
  ones = jnp.ones(x.shape[:2])
  found, sizes = merge_pairs(jnp.asarray(x), ones, jnp.asarray(keys), 3, prefix)
  assert found.shape == (2, prefix + 4, 4)
  np.testing.assert_array_equal(found[:, :prefix], x[:, :prefix])
  np.testing.assert_array_equal(sizes[:, :prefix], 1)
  np.testing.assert_allclose((sizes[..., None] * found).sum(axis=1), x.sum(axis=1), atol=1e-5)


@pytest.mark.parametrize("counts", [(12, 9, 4), (16, 7, 8), (0, 0, 1), (5, 6, 0)])
def test_evit_equals_its_definition(images, counts):
  method, arch, params, _ = prepared("evit")
  ours = logits_of(arch, params, images, method.execution(counts))
  rule = method_oracles.evit([1, 2, 3], counts)  # between attention and MLP; one before the paper's
  np.testing.assert_allclose(ours, by_oracle(arch, params, images, between=rule), atol=3e-5)


def test_evit_fuses_by_attention_and_keeps_the_most_attended_first():
  x = jnp.arange(10.0).reshape(1, 5, 2)
  attention = jnp.asarray([[0.4, 0.1, 0.3, 0.05, 0.15]])
  expected = [[0, 1], [4, 5], [8, 9], [0.1 * 2 + 0.05 * 6, 0.1 * 3 + 0.05 * 7]]
  np.testing.assert_allclose(fuse(x, attention, 2)[0], expected, rtol=1e-6)
  assert fuse(x, attention, 4) is x


def test_evit_keeps_one_rate_and_counts_the_fused_token_in():
  arch = METHODS["evit"].architecture(vit.VARIANTS["deit_t"], None)
  assert METHODS["evit"].counts(arch, 0.7) == (138, 98, 70)  # ⌈0.7 · 196⌉, of 139, of 99
  assert METHODS["evit"].counts(arch, 1.0) == (196, 196, 196)


@pytest.mark.parametrize(
  ("name", "blocks", "score"),
  [
    ("top_k", (2, 3, 4), "paper"),
    ("drop_fixed", (2, 3, 4), "paper"),
    ("dynamicvit", (1, 2, 3), "attention"),
  ],
)
def test_dropping_a_fixed_count_equals_its_definition(images, name, blocks, score):
  _, arch, params, counts = prepared(name)
  assert arch.prune_before == blocks
  assert counts[0] > counts[1] > counts[2] > 0
  ours = inference(name)(params, images)
  rule = method_oracles.top_k(blocks, counts, score)
  np.testing.assert_allclose(ours, by_oracle(arch, params, images, before=rule), atol=3e-5)


@pytest.mark.slow
def test_no_two_methods_that_are_compared_by_default_do_the_same(images):
  """Every other name is of one of these, which is measured once."""
  assert {*DEFAULT, *ALIASES} == {*NAMES} and len(DEFAULT) + len(ALIASES) == len(NAMES)
  assert all(METHODS[name] is METHODS[of] for name, of in ALIASES.items())
  assert ALIASES == {"top_k": "drop_fixed"}
  logits = {}
  for name in DEFAULT:
    logits[name] = np.asarray(inference(name)(prepared(name)[2], images))
  for one, other in itertools.combinations(DEFAULT, 2):
    assert np.abs(logits[one] - logits[other]).max() > 1e-3, (one, other)


def test_counts_follow_the_powers_of_one_ratio():
  for name in ("top_k", "drop_fixed", "random", "dynamicvit"):
    arch = METHODS[name].architecture(vit.VARIANTS["deit_s"], None)
    assert METHODS[name].counts(arch, 0.7) == (137, 96, 67)


@pytest.mark.slow
@pytest.mark.parametrize(("adaptive", "fixed"), [("drop", "drop_fixed"), ("merge", "merge_fixed")])
def test_the_fixed_count_has_the_criterion_of_the_adaptive_method(images, adaptive, fixed):
  """Given as many tokens as thresholds leave of an image, it does what they do."""
  _, arch, params, _ = prepared(adaptive)
  method, same, _, _ = prepared(fixed)
  assert same == arch
  masked = tiny.run_masked(arch, params, images)
  kept = np.asarray(masked.kept).astype(int)
  assert len(np.unique(kept, axis=0)) > 1
  for i in range(2):
    run = method.execution(tuple(kept[i].tolist()))
    ours = logits_of(arch, params, images[i : i + 1], run)
    np.testing.assert_allclose(ours[0], masked.logits[i], atol=3e-5)


def test_random_tokens_are_those_of_the_seed_and_the_image(images):
  method, arch, params, counts = prepared("random")
  assert counts == prepared("top_k")[-1]
  ours = np.asarray(inference("random")(params, images))
  np.testing.assert_array_equal(ours, logits_of(arch, params, images, method.execution(counts)))
  other = logits_of(arch, params, images, Random(seed=1).execution(counts))
  assert (np.abs(ours - other).max(axis=1) > 1e-3).all()
  numbers = np.asarray(number_of(jnp.asarray(images)))
  assert len(set(numbers.tolist())) == len(images)
  changed = images.copy()
  changed[0, 3, 5, 1] += 0.1
  assert (np.asarray(number_of(jnp.asarray(changed))) != numbers).tolist() == [True] + 3 * [False]


@pytest.mark.parametrize("name", DISTINCT)
def test_a_batch_mate_never_changes_an_image(images, name):
  _, arch, params, _ = prepared(name)
  run = inference(name)
  ours = run(params, images)
  batch = 3 * tiny.images(arch, len(images), seed=9)
  batch[2] = images[2]
  outputs = run(params, batch)
  np.testing.assert_allclose(outputs[2], ours[2], atol=2e-5)
  assert np.abs(outputs[0] - ours[0]).max() > 0.1


@pytest.mark.parametrize("name", SOME)
def test_with_nothing_taken_away_it_is_the_dense_network(images, name):
  method, arch, params, _ = prepared(name)
  assert_dense_with_nothing_taken_away(method, arch, params, images)


def assert_dense_with_nothing_taken_away(method, arch, params, images):
  """In inference and in training."""
  counts = () if method.adaptive else method.choices(arch)[0]
  params = params | {"thresholds": -jnp.ones(3)}
  dense = np.asarray(tiny.run_dense(arch, params, images).logits)
  for function in (method.execution(counts), method.training(counts)):
    np.testing.assert_allclose(logits_of(arch, params, images, function), dense, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_in_training_it_predicts_as_in_inference_and_all_weights_learn(images, name):
  method, arch, params, counts = prepared(name)
  weights_ = vit.without_thresholds(params)

  @jax.jit
  def loss(weights_):
    model = vit.model(arch, params | weights_)
    logits = method.training(counts)(model, images).logits
    return (logits**2).mean(), logits

  grads, logits = jax.jit(jax.grad(loss, has_aux=True))(weights_)
  np.testing.assert_allclose(logits, inference(name)(params, images), atol=5e-5)
  for leaf in jax.tree.leaves(grads):
    assert np.isfinite(leaf).all()
    assert np.abs(leaf).max() > 0


def recording(half, seen):
  """A half of a block that notes how many tokens it gets."""

  def run(self, x, *rest):
    seen.append(x.shape[1])
    return half(self, x, *rest)

  return run


@pytest.mark.parametrize("two_heads", [False, True], ids=["one head", "two heads"])
@pytest.mark.parametrize("name", FIXED)
def test_gmacs_are_those_of_the_tokens_that_flow(monkeypatch, images, name, two_heads):
  method, arch, params, counts = prepared(name, **{"aux_head": True} if two_heads else {})
  flows = {"attended": [], "fed_forward": []}
  for half, seen in flows.items():
    monkeypatch.setattr(Block, half, recording(getattr(Block, half), seen))
  jax.eval_shape(lambda p, x: method.forward(vit.model(arch, p), x, counts), params, images)
  d, m, depth = arch.width, arch.hidden, arch.depth
  attention, mlp = flows["attended"][:depth], flows["fed_forward"][:depth]
  macs = sum(4 * d * d * n + 2 * d * n * n for n in attention[:-1])
  macs += sum(2 * d * m * n for n in mlp[:-1])
  last = attention[-1]
  if two_heads:  # all tokens are read
    macs += 4 * d * d * last + 2 * d * last**2 + 2 * d * m * last
  else:
    macs += 2 * d * d * last + 2 * d * last + 2 * d * d + 2 * d * m
  width = d // arch.heads
  if name == "tome":
    merging = [n for n, k in zip(attention[:-1], mlp[:-1], strict=True) if k < n]
    macs += sum(width * ((n + 1) // 2) * (n // 2) for n in merging)
  if name == "merge_fixed":
    before = [attention[stage - 1] for stage in arch.prune_before]
    macs += sum(width * n**2 for n in before)
  stem = complexity.gmacs_of_blocks(arch, np.zeros(depth))
  np.testing.assert_allclose(
    method.cost(arch, np.array(counts), real=True), stem + macs / 1e9, rtol=1e-6
  )


def test_the_paper_s_count_of_tome_by_hand():
  arch = vit.VARIANTS["deit_t"]
  total, n = 196 * 768 * 192, 197
  for _ in range(12):
    total += 4 * 192**2 * n + 2 * 192 * n**2 + 2 * 192 * 768 * (n - 11)
    total += (n + 1) // 2 * (n // 2) * 64
    n -= 11
  ours = METHODS["tome"].cost(arch, np.array(pairs(arch, 11)))
  np.testing.assert_allclose(ours, total / 1e9, rtol=1e-9)
  assert ours / complexity.dense_gmacs(arch) == pytest.approx(0.6506, abs=1e-4)


def test_the_paper_s_count_of_evit_by_hand():
  arch = vit.VARIANTS["deit_t"]
  tokens = [197] * 4 + [140] * 3 + [100] * 3 + [72] * 2  # 138, 98, 70; the fused, the class token
  in_mlp = [197] * 3 + [140] * 3 + [100] * 3 + [72] * 3
  total = 196 * 768 * 192 + sum(4 * 192**2 * n + 2 * 192 * n**2 for n in tokens)
  total += sum(2 * 192 * 768 * n for n in in_mlp)
  ours = METHODS["evit"].cost(arch, np.array([138, 98, 70]))
  np.testing.assert_allclose(ours, total / 1e9, rtol=1e-9)


@pytest.mark.parametrize("budget", [0.8, 0.65, 0.5])
@pytest.mark.parametrize("name", FIXED)
def test_a_budget_is_met_as_nearly_as_whole_tokens_allow(name, budget):
  merging = dataclasses.replace(
    vit.VARIANTS["deit_t"], reduction="merge", prune_before=(2, 4, 6, 8, 10)
  )
  method = METHODS[name]
  arch = method.architecture(vit.VARIANTS["deit_t"], merging)
  share = method.cost(arch, np.array(method.solve(arch, budget))) / complexity.dense_gmacs(arch)
  assert share == pytest.approx(budget, abs=0.016 if name == "tome" else 0.002)
  if name == "tome":  # neither one pair more nor one less is nearer
    choices = [method.cost(arch, np.array(pairs(arch, r))) for r in range(40)]
    nearest = min(abs(np.array(choices) / complexity.dense_gmacs(arch) - budget))
    assert abs(share - budget) == nearest


@pytest.mark.parametrize("name", NAMES)
def test_an_impossible_budget_is_refused(name):
  arch = METHODS[name].architecture(PAPER, MERGING)
  with pytest.raises(InputError, match=r"budget 1\.2 is not in \(0, 1\]"):
    METHODS[name].solve(arch, 1.2)
  with pytest.raises(InputError, match=r"budget 0\.05 cannot be met"):
    METHODS[name].solve(arch, 0.05)


def test_nothing_comes_before_the_first_block():
  early = tiny.arch(depth=4, prune_before=(1, 2, 3))
  assert METHODS["dynamicvit"].architecture(early, None).prune_before == (1, 2, 3)
  method = METHODS["evit"]  # it decides within a block
  counts = (8, 4, 2)
  images, params = tiny.images(early, 2), tiny.params(early)
  ours = logits_of(early, params, images, method.execution(counts))
  rule = method_oracles.evit([0, 1, 2], counts)
  np.testing.assert_allclose(ours, by_oracle(early, params, images, between=rule), atol=3e-5)
