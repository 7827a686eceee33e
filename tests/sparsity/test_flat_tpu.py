"""Flat execution by the kernels for a TPU, interpreted, equals masked image by image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from sparsity import test_flat
from sparsity.test_flat import COST, assert_equals

from asvit_jax import vit
from asvit_jax.sparsity.executions import flat, flat_backends, flat_rows, flat_tpu
from asvit_jax.sparsity.kernels import tpu_attention, tpu_products, tpu_rows

KINDS = {
  "drop": dict(layer_scale=True),
  "merge": COST | dict(activation="quick_gelu"),
  "recipe": COST | dict(score_exponents=(0.5, 1.0, 0.5, 0.25), prune_inside=True, dist_token=True),
  "rounded": COST | dict(count_multiple=4),
  "lv": tiny.LV,
  "avg": dict(pool="avg", reduction="merge", activation="gelu_tanh"),
  "inside": dict(prune_inside=True, dist_token=True, dist_head=True),
  "keys": dict(reduction="merge", score="attention_novelty"),
  "even": dict(width=128, heads=2),
  "registers": COST | dict(registers=4),
}


class Spoilt(flat_tpu.TPU):
  """The interpreted kernels, with rows that are not a number wherever no token is."""

  def embedded(self, model, images):
    n = model.arch.prefix_tokens + model.arch.patches
    owned = jnp.arange(flat_rows.aligned(n)) < n
    rows = super().embedded(model, images)
    return jnp.where(jnp.tile(owned, len(images))[:, None], rows, jnp.nan)

  def compacted(self, moving, layout):
    rows = super().compacted(moving, layout)
    offset = jnp.arange(len(rows))[:, None] - layout.start
    owned = ((offset >= 0) & (offset < layout.count)).any(axis=1)
    return jnp.where(owned[:, None], rows, jnp.nan)


def pruned(images, **changes):
  arch = tiny.arch(**dict(width=192, depth=3, prune_before=(1, 2)) | changes)
  batch = tiny.images(arch, images)
  return arch, tiny.with_thresholds(arch, tiny.params(arch), batch, (0.7, 0.4)), batch


def run(*args, kernels=Spoilt, **options):
  return test_flat.run(*args, backend=kernels(interpret=True), **options)


@pytest.mark.parametrize("kind", tiny.few(list(KINDS), "drop", "merge", "recipe"))
def test_it_equals_masked(kind):
  arch, params, images = pruned(3, **KINDS[kind])
  ours = run(arch, params, images, tokens=True)
  assert_equals(ours, tiny.run_masked(arch, params, images), different=1)


def test_one_image_and_only_what_is_read():
  arch, params, images = pruned(1)
  expected = tiny.run_masked(arch, params, images)
  ours = run(arch, params, images)
  np.testing.assert_array_equal(ours.keep, expected.keep)
  np.testing.assert_allclose(ours.logits, expected.logits, atol=1e-5)


@pytest.mark.slow
def test_a_reduction_that_does_not_say_where_tokens_go():
  class Gathering(flat_tpu.TPU):
    compacts = False

  arch, params, images = pruned(3, **KINDS["merge"])
  expected = tiny.run_masked(arch, params, images)
  ours = run(arch, params, images, kernels=Gathering)
  np.testing.assert_array_equal(ours.keep, expected.keep)
  np.testing.assert_allclose(ours.logits, expected.logits, atol=1e-5)


@pytest.mark.parametrize("count", [2, 8])
def test_a_dense_network_runs_on_rows_too(count):
  """Eight images are embedded together."""
  arch = tiny.arch(width=192, depth=2, prune_before=())
  images = tiny.images(arch, count)
  params = tiny.params(arch)
  expected = tiny.run_dense(arch, params, images).logits
  for backend in (flat_rows.reference, Spoilt(interpret=True)):
    ours = jax.jit(lambda p, i, on=backend: flat.dense(vit.model(arch, p), i, on))(params, images)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.slow
def test_bfloat16_differs_by_its_rounding():
  arch, params, images = pruned(3)
  ours = run(arch, params, images, dtype=jnp.bfloat16)
  plain = jax.jit(lambda p, i: flat.flat(vit.model(arch, p, dtype=jnp.bfloat16), i))
  exact = tiny.run_masked(arch, params, images)
  np.testing.assert_array_equal(ours.keep, exact.keep)
  error, theirs = (np.abs(a.logits - exact.logits).max() for a in (ours, plain(params, images)))
  assert error < 1.5 * theirs


def softmax(q, k, v, bias):
  logits = np.einsum("qhc,khc->hqk", q, k) / 8 + bias
  mass = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return np.einsum("hqk,khc->qhc", mass / mass.sum(axis=-1, keepdims=True), v)


@pytest.mark.parametrize("first", [None, 8])
@pytest.mark.parametrize(
  ("heads", "counts"), [(3, (1, 80, 8, 17, 33)), (2, (48, 31, 64, 65)), (1, (32,))]
)
def test_attention_of_each_image(heads, counts, first):
  """Counts on both sides of tiles and widths; what belongs to no token is not a number."""
  rng, width = np.random.default_rng(0), 80
  count = np.array(counts, np.int32)
  ends = np.cumsum(flat_rows.aligned(count))
  start = np.concatenate([[0], ends[:-1]]).astype(np.int32)
  padded = 2 * tpu_attention.pairs_of(heads)
  qkv = np.full((ends[-1] + 16, 3, padded, 64), np.nan, np.float32)
  bias = np.full((len(count), width), tpu_attention.NEVER, np.float32)
  for image, (s, c) in enumerate(zip(start, count, strict=True)):
    qkv[s : s + c] = 2 * rng.standard_normal((c, *qkv.shape[1:]))
    bias[image, :c] = rng.standard_normal(c)
  qkv[:, :, heads:] = 7.0
  given, options = qkv.reshape(len(qkv), -1), {"heads": heads, "width": width, "first": first}
  out = tpu_attention.attend(given, start, count, bias, **options, interpret=True)
  out = np.asarray(out).reshape(-1, padded, 64)
  assert len(out) == (len(qkv) if first is None else len(count) * first)
  for image, (s, c) in enumerate(zip(start, count, strict=True)):
    expected = softmax(*np.moveaxis(qkv[s : s + c, :, :heads], 1, 0), bias[image, :c])
    at, found = (s, c) if first is None else (image * first, min(c, first))
    np.testing.assert_allclose(out[at : at + found, :heads], expected[:found], atol=1e-5)
    assert not out[at : at + found, heads:].any()


@pytest.mark.parametrize("total", [0, 1, 32, 33, 80])
def test_rows_are_computed_as_far_as_there_are_any(monkeypatch, total):
  monkeypatch.setattr(tpu_rows, "TILE", 32)
  rng = np.random.default_rng(0)

  def draw(*shape):
    return rng.standard_normal(shape).astype(np.float32)

  x, y, gain = 3 + draw(80, 24), draw(80, 40), draw(24)
  norm = tpu_rows.Norm(draw(24), draw(24))
  up, down, linear = (
    tpu_rows.Linear(draw(a, b) / 5, draw(b)) for a, b in ((24, 96), (96, 24), (40, 24))
  )
  normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  hidden = (normed * norm.scale + norm.bias) @ up.kernel + up.bias
  expected = (
    hidden,
    x + (y @ linear.kernel + linear.bias) * gain,
    x + (np.asarray(vit.layers.gelu(hidden)) @ down.kernel + down.bias) * gain,
  )
  at, options = jnp.int32(total), dict(interpret=True)
  found = (
    tpu_rows.norm_linear(x, at, norm, up, epsilon=1e-5, **options),
    tpu_rows.linear_residual(x, y, at, linear, gain, **options),
    tpu_rows.mlp_residual(x, at, norm, up, down, gain, epsilon=1e-5, activation="gelu", **options),
  )
  for ours, wanted in zip(found, expected, strict=True):
    np.testing.assert_allclose(ours[:total], wanted[:total], atol=3e-5)
    assert np.isnan(ours[-(-total // 32) * 32 :]).all()  # not computed


def test_gelu_is_exact():
  x = np.linspace(-12, 12, 24001, dtype=np.float32)
  found = jax.jit(lambda x: tpu_products.activate("gelu", x))(x)
  with jax.enable_x64(True):
    expected = jax.nn.gelu(jnp.asarray(x, jnp.float64), approximate=False)
  np.testing.assert_allclose(found, expected, atol=4e-7)


def test_products_have_the_precision_that_is_asked_for():
  a = jnp.ones((8, 8))

  def precision(dtype):
    (product,) = jax.make_jaxpr(lambda a: tpu_products.dot(a, a))(a.astype(dtype)).eqns
    return product.params["precision"][0]

  highest, usual = jax.lax.Precision.HIGHEST, jax.lax.Precision.DEFAULT
  assert precision(jnp.float32) == usual
  for name in ("high", "highest"):  # kernels have no "high"
    with jax.default_matmul_precision(name):
      assert precision(jnp.float32) == highest
      assert precision(jnp.bfloat16) == usual


def test_what_kernels_do_not_cover_falls_back():
  def chosen(dtype=jnp.float32, **changes):
    arch = vit.Architecture(**dict(width=384, heads=6) | changes)
    return flat_backends.backend_for(arch, dtype, "tpu").name

  assert chosen() == chosen(jnp.bfloat16, layer_scale=True) == flat_tpu.TPU.name
  refused = (
    dict(width=512, heads=8),
    dict(heads=12),
    dict(mlp_ratio=6),
    dict(image_size=384),
    dict(rope="dinov3"),
    dict(qk_norm=True),
    dict(swiglu=True),
    dict(mlp_norm=True),
    dict(dtype=jnp.float16),
  )
  for changes in refused:
    assert chosen(**changes) == "plain XLA", changes
  reason = flat_tpu.TPU().refuses(vit.Architecture(width=512, heads=8), jnp.float32)
  assert reason == "its width is 512, not one of 192, 384, 768"
