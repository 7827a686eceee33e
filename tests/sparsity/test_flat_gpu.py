"""Flat execution's backend for GPUs, interpreted: it equals masked, as the reference does."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from sparsity.test_flat import KINDS, assert_equals, pruned, run

from asvit_jax.sparsity.attentions import Softmax
from asvit_jax.sparsity.executions import flat_gpu, flat_rows
from asvit_jax.sparsity.kernels.gpu_attention import ragged_attention

BACKEND = flat_gpu.Triton(interpret=True)
OWN = Softmax()  # an attention of a user's, which may compute anything


class Spoilt(flat_gpu.Triton):
  """The backend, with NaN in all rows that belong to no token."""

  def rows(self, windows, layout, length):
    """See `flat_rows.Reference`."""
    rows = super().rows(windows, layout, length)
    image = (jnp.arange(length)[:, None] >= layout.start[1:]).sum(axis=1)
    owned = jnp.arange(length) < (layout.start + layout.count)[image]
    return jnp.where(owned[:, None], rows, jnp.nan)


def test_attention_is_that_of_each_image_alone():
  """Numbers of tokens around the edges of tiles and of the buffer, and NaN between images."""
  heads, channels, most = 3, 24, 33  # channels are padded to 32
  count = np.array([1, 15, 16, 17, 33, 32], np.int32)
  start = np.array([0, 16, 32, 48, 80, 128], np.int32)
  rng = np.random.default_rng(0)
  rows = rng.standard_normal((160, 3 * heads * channels)).astype(np.float32)
  bias = rng.standard_normal((len(count), most)).astype(np.float32)
  ours = [slice(s, s + n) for s, n in zip(start, count, strict=True)]
  qkv = np.full_like(rows, np.nan)
  for at in ours:
    qkv[at] = rows[at]
  for biases in (bias, None):
    found = ragged_attention(
      qkv, start, count, biases, heads=heads, most=most, tile=16, interpret=True
    )
    for image, at in enumerate(ours):
      parts = np.split(qkv[at].astype(np.float64), 3, axis=1)
      q, k, v = (part.reshape(-1, heads, channels) for part in parts)
      logits = np.einsum("qhc,khc->hqk", q, k) * channels**-0.5
      if biases is not None:
        logits += bias[image, : count[image]]
      mass = np.exp(logits - logits.max(axis=-1, keepdims=True))
      mass /= mass.sum(axis=-1, keepdims=True)
      expected = np.einsum("hqk,khc->qhc", mass, v).reshape(-1, heads * channels)
      np.testing.assert_allclose(found[at], expected, atol=2e-6)


def test_what_does_not_fit_is_neither_read_nor_written():
  """Where there are too few rows the results are thrown away, but memory must stay whole."""
  count, start = np.array([16, 20, 9], np.int32), np.array([0, 16, 48], np.int32)
  qkv = np.random.default_rng(0).standard_normal((48, 24)).astype(np.float32)

  def attention(length):
    rows = qkv[:length]
    return np.asarray(
      ragged_attention(rows, start, count, None, heads=1, most=20, tile=16, interpret=True)
    )

  for length in (16, 32, 48):
    found = attention(length)
    assert found.shape == (length, 8)
    np.testing.assert_array_equal(found[:16], attention(48)[:16])


@pytest.mark.parametrize("kind", tiny.few(list(KINDS), "drop", "merge_cost", "eva02"))
def test_it_equals_masked(kind):
  arch, params, images = pruned(**KINDS[kind])
  ours = run(arch, params, images, tokens=True, backend=Spoilt(interpret=True))
  assert_equals(ours, tiny.run_masked(arch, params, images), different=2)


def test_one_image_and_no_tokens_asked_for():
  arch, params, images = pruned(**KINDS["merge"])
  expected = tiny.run_masked(arch, params, images)
  ours = run(arch, params, images[:1], backend=BACKEND)
  np.testing.assert_array_equal(ours.keep, expected.keep[:1])
  np.testing.assert_allclose(ours.logits, expected.logits[:1], atol=1e-5)


def test_bfloat16_is_as_near_as_the_reference():
  arch, params, images = pruned(**KINDS["merge"])
  exact = tiny.run_masked(arch, params, images).logits
  results = [
    run(arch, params, images, dtype=jnp.bfloat16, backend=backend)
    for backend in (BACKEND, flat_rows.reference)
  ]
  ours, reference = (np.abs(np.asarray(result.logits - exact)).max() for result in results)
  np.testing.assert_array_equal(results[0].keep, results[1].keep)
  assert 1e-4 < ours < 1.5 * reference + 0.01


def test_it_refuses_in_words():
  arch = tiny.arch()
  assert BACKEND.refuses(arch, jnp.dtype("float32")) is None
  wide = tiny.arch(width=258, heads=2)
  assert "129" in BACKEND.refuses(wide, jnp.dtype("float32"))
  own = tiny.arch(attention=f"{__name__}:OWN")
  assert own.attention in BACKEND.refuses(own, jnp.dtype("float32"))


@pytest.mark.parametrize(("capability", "runs"), [("7.5", False), ("8.0", True), ("12.0", True)])
def test_it_refuses_gpus_that_triton_does_not_know(capability, runs, monkeypatch):
  device = types.SimpleNamespace(compute_capability=capability)
  monkeypatch.setattr(jax, "devices", lambda: [device])
  assert (BACKEND.refuses(tiny.arch(), jnp.dtype("float32")) is None) == runs
