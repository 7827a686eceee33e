"""Networks that pool their patches, and networks with other tokens before the patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.core.errors import InputError
from asvit_jax.network import load
from asvit_jax.sparsity import complexity, gates
from asvit_jax.sparsity.attentions import softmax
from asvit_jax.sparsity.executions import fixed_count, packed

MERGES = dict(reduction="merge_tokens", score="merge_cost", score_exponents=(1.0, 0.5, 0.5, 0.5))
KINDS = {
  "avg": dict(class_token=False, pool="avg"),
  "avg, merged": dict(pool="avg", norm_after_pool=True, registers=2) | MERGES,
  "map, merged": dict(
    class_token=False, pool="map", activation="gelu_tanh", head="none", classes=24, **MERGES
  ),
  "clip, registers": dict(
    registers=3,
    norm_pre=True,
    patch_bias=False,
    activation="quick_gelu",
    head="projection",
    reduction="merge",
    score="attention_novelty",
  ),
}


@pytest.fixture(scope="module", params=KINDS)
def pruned(request):
  """(arch, params, images, outputs of masked, function that runs packed)."""
  arch = tiny.arch(depth=3, prune_before=(1, 2), **KINDS[request.param])
  images = tiny.images(arch, 4)
  params = tiny.with_thresholds(arch, tiny.params(arch), images, (0.7, 0.4))
  run = jax.jit(lambda p, x: packed.packed(vit.model(arch, p), x, step=8, tokens=True))
  return arch, params, images, tiny.run_masked(arch, params, images), run


def test_packed_equals_masked_and_batch_mates_never_matter(pruned):
  arch, params, images, masked, run = pruned
  ours = run(params, images)
  np.testing.assert_array_equal(ours.keep, masked.keep)
  np.testing.assert_allclose(ours.logits, masked.logits, atol=2e-5)
  assert len(np.unique(np.asarray(masked.kept), axis=0)) > 2
  assert np.abs(masked.logits - tiny.run_dense(arch, params, images).logits).max() > 1e-3
  mates = np.concatenate([3 * images[2:], images[:2]])
  np.testing.assert_allclose(run(params, mates).logits[2:], ours.logits[:2], atol=2e-6)
  # Tokens of both, by their place in the image.
  for i, positions in enumerate(np.asarray(ours.positions)):
    there = positions >= 0
    assert set(positions[there]) == set(np.flatnonzero(np.asarray(masked.positions[i]) >= 0))
    expected = np.asarray(masked.tokens[i])[positions[there]]
    np.testing.assert_allclose(np.asarray(ours.tokens[i])[there], expected, atol=1e-4)


def test_pooled_patches_are_never_all_gone(pruned):
  arch, params, images, _, run = pruned
  params = params | {"thresholds": np.full(2, 1e9, np.float32)}
  masked, ours = tiny.run_masked(arch, params, images), run(params, images)
  np.testing.assert_array_equal(masked.kept, arch.least_patches)
  np.testing.assert_array_equal(ours.keep, masked.keep)
  np.testing.assert_allclose(ours.logits, masked.logits, atol=2e-5)
  assert np.isfinite(masked.logits).all()


def test_with_every_token_all_are_dense_and_fixed_keeps_the_best(pruned):
  arch, params, images, masked, run = pruned
  dense = tiny.run_dense(arch, params, images)
  all_ = params | {"thresholds": np.full(2, -1e9, np.float32)}
  for outputs in (run(all_, images), tiny.run_masked(arch, all_, images)):
    np.testing.assert_allclose(outputs.logits, dense.logits, atol=2e-5)
  counts = tuple(np.asarray(masked.kept[0]).astype(int).tolist())
  fixed = jax.jit(lambda p, x: fixed_count.fixed_count(vit.model(arch, p), x, counts))
  ours = fixed(params, images)
  # The first image keeps these numbers by its thresholds, too.
  np.testing.assert_array_equal(ours.keep[0], masked.keep[0])
  np.testing.assert_allclose(ours.logits[0], masked.logits[0], atol=2e-5)


@pytest.mark.slow
def test_gradients_are_finite_and_reach_thresholds_and_the_head(pruned):
  arch, params, images, _, _ = pruned

  def gate(scores, threshold):
    return gates.straight_through_gate(scores, threshold, 1.0)

  @jax.jit
  def gradient(params):
    return jax.grad(lambda p: (tiny.run_masked(arch, p, images, gate).logits ** 2).sum())(params)

  found = gradient(params)
  if arch.pool == "map":  # a key bias of the pooling shifts all logits alike
    found["attn_pool"]["kv"]["bias"] = found["attn_pool"]["kv"]["bias"].at[:24].set(1e-9)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
  assert np.abs(found["thresholds"]).min() > 0
  last = {"map": "attn_pool", "avg": "head", "token": "head"}[arch.pool]
  assert all(
    np.abs(leaf).max() > 0
    for leaf in jax.tree.leaves(found[last]["norm" if last == "attn_pool" else "kernel"])
  )


def test_calibration_reaches_a_budget(pruned):
  arch, _, images, _, _ = pruned
  network = tiny.network(arch).calibrate(np.uint8(80 + 40 * np.tanh(images)), 0.75)
  assert network.reached[0].share == pytest.approx(0.75, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["avg", "map"])
def test_a_token_of_size_two_is_pooled_as_two_tokens(pool):
  arch = tiny.arch(pool=pool, class_token=False, prune_before=())
  model = vit.model(arch, tiny.params(arch))
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 24)), jnp.float32)
  twice = jnp.concatenate([x[:, :1], x], axis=1)
  sizes = jnp.ones((2, 6)).at[:, 0].set(2.0)
  np.testing.assert_allclose(model.pool(x, sizes), model.pool(twice), atol=1e-6)
  assert np.abs(model.pool(x) - model.pool(twice)).max() > 1e-3
  # Tokens that are not there count nothing, whatever their values.
  present = jnp.ones((2, 6)).at[:, 4:].set(0.0)
  np.testing.assert_allclose(
    model.pool(50 * x, None, present), model.pool(50 * x[:, :4]), atol=1e-4
  )


def test_a_pooled_mean_is_that_of_the_normed_patches_and_leaves_the_prefix_out():
  arch = tiny.arch(pool="avg", registers=2, prune_before=())
  params, images = tiny.params(arch), tiny.images(arch, 2)
  outputs = tiny.run_dense(arch, params, images)
  mean = np.asarray(outputs.tokens, np.float64)[:, 3:].mean(axis=1)
  expected = mean @ np.asarray(params["head"]["kernel"]) + np.asarray(params["head"]["bias"])
  np.testing.assert_allclose(outputs.logits, expected, atol=1e-5)


def test_what_a_token_receives_is_the_mean_over_the_tokens_that_are_there():
  rng = np.random.default_rng(0)
  q, k, v = (rng.standard_normal((1, 6, 2, 4)).astype(np.float32) for _ in range(3))
  logits = np.einsum("qhc,khc->hqk", q[0], k[0]).astype(np.float64) / 2
  there = np.array([True, True, False, True, False, True])

  def expected(rows):
    mass = np.exp(logits[:, rows][:, :, rows])
    return (mass / mass.sum(axis=-1, keepdims=True)).mean(axis=1).T

  every = np.full(6, True)
  np.testing.assert_allclose(
    softmax.dense(q, k, v, received=True)[1][0], expected(every), atol=1e-6
  )
  keep = there[None].astype(np.float32)
  masked = softmax.masked(q, k, v, keep, received=True)[1][0]
  np.testing.assert_allclose(masked[there], expected(there), atol=2e-6)
  first = softmax.prefix(q, k, v, jnp.array([4]), received=True)[1][0]
  np.testing.assert_allclose(first[:4], expected(np.arange(6) < 4), atol=1e-6)
  np.testing.assert_array_equal(first[4:], 0)


def test_gmacs_count_all_rows_of_the_last_block_and_the_pooling():
  arch = tiny.arch(depth=3, prune_before=(1,), class_token=False, pool="map")
  n = np.array([16, 9, 9])
  blocks = 12 * 24 * 24 * n.sum() + 2 * 24 * (n**2).sum()
  pool = 2 * 24 * 24 * 9 + 2 * 24 * 9 + 2 * 24 * 24 + 2 * 24 * 96
  expected = (blocks + pool + 16 * 3 * 64 * 24) / 1e9
  np.testing.assert_allclose(complexity.gmacs(arch, jnp.array([9.0])), expected, rtol=1e-6)
  np.testing.assert_allclose(complexity.real_gmacs(arch, np.array([9.0])), expected, rtol=1e-6)
  with pytest.raises(InputError, match="all but 1 of 16 patches"):
    complexity.check_budget(arch, 0.3)
  with pytest.raises(InputError, match="from 1 to the 16 patches"):
    tiny.network(arch, counts=(0,))


@pytest.mark.slow
def test_a_pooled_network_is_exported(tmp_path):
  arch = tiny.arch(depth=2, prune_before=(1,), **KINDS["avg, merged"])
  network = tiny.network(arch)
  images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
  network = network.calibrate(images, 0.9)
  note = network.export(tmp_path / "net.stablehlo.zip", "stablehlo", (1,))
  assert note["largest_logit_difference"] <= 2e-5
  network.save(tmp_path / "w.safetensors")
  assert load(tmp_path / "w.safetensors") == network


def test_features_are_not_taken_for_classes():
  network = tiny.network(tiny.arch(**KINDS["map, merged"]))
  images = np.zeros((2, 32, 32, 3), np.uint8)
  with pytest.raises(InputError, match=r"output is 24 features.*init_new_head"):
    network.search(images, 0.8, trials=1)
  with pytest.raises(InputError, match="a network whose output is 24 features"):
    network.calibrate(images, speedup=1.2)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (dict(class_token=False), 'no class token, with model.pool "token", which reads it'),
    (dict(class_token=False, pool="avg", dist_token=True), "no class token, with model.dist_token"),
    (dict(pool="max"), "model.pool 'max' is not valid: expected one of 'token', 'avg'"),
    (dict(pool="map", norm_after_pool=True), 'norm_after_pool with model.pool "map"'),
    (dict(pool="avg", aux_head=True), 'model.aux_head with model.pool "avg"'),
    (dict(head="none"), r'model.head "none" with model.num_classes 5: expected 24'),
    (dict(activation="relu"), "model.activation 'relu' is not valid: expected one of 'gelu',"),
    (dict(registers=-1), "model.registers -1 is not valid"),
  ],
  ids=str,
)
def test_parts_that_do_not_go_together_are_input_errors(changes, said):
  with pytest.raises(InputError, match=said):
    tiny.arch(**changes)


def test_an_architecture_says_only_what_older_versions_lack():
  arch = tiny.arch(pool="avg", registers=4)
  assert vit.Architecture.from_json(arch.to_json(), "test") == arch
  assert arch.to_json().keys() - tiny.arch().to_json().keys() == {"pool", "registers"}
