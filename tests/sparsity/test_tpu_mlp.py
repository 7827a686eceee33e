"""The MLP of training steps by kernels, interpreted, equals XLA's, and so do all gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.sparsity import step_kernels
from asvit_jax.sparsity.kernels import tpu_mlp, tpu_products
from asvit_jax.vit.layers import ACTIVATIONS


def gradients(arch, params, x, gradient, kernels, dtype):
  """The first block's `fed_forward`, and the gradients of its parameters and of x."""

  @jax.jit
  def run(params, x, gradient):
    def forward(params, x):
      model = vit.model(arch, params, dtype=dtype)
      if kernels:
        step_kernels.train_mode(model)
      return model.blocks[0].fed_forward(x)

    y, back = jax.vjp(forward, params, x)
    to_params, to_x = back(gradient.astype(y.dtype))
    to_params = to_params["blocks"][0]
    return {"y": y, "x": to_x, **{name: to_params[name] for name in ("norm2", "mlp")}}

  with step_kernels.interpreted():
    return run(params, jnp.asarray(x, dtype), jnp.asarray(gradient))


def drawn(arch, b=3, n=20):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, b, n, arch.width)).astype(np.float32)
  x[0] = 2 * x[0] + rng.standard_normal(arch.width)
  return tiny.params(arch), *x


# Three tiles, the last one with rows that are not there: the second part has one tile less.
@pytest.mark.parametrize(
  "changes",
  [
    dict(),
    dict(activation="quick_gelu", layer_scale=True),
    pytest.param(dict(activation="gelu_tanh", residual_divisor=2.0), marks=pytest.mark.slow),
  ],
)
def test_it_equals_the_layers(changes, monkeypatch):
  monkeypatch.setattr(tpu_mlp, "TILE", 24)
  monkeypatch.setattr(tpu_mlp, "_CHUNK", 128)
  monkeypatch.setattr(tpu_mlp, "_cores", lambda: 2)
  arch = tiny.arch(**dict(width=64, heads=1, depth=1, prune_before=()) | changes)
  given = drawn(arch)
  ours, theirs = (gradients(arch, *given, kernels, "float32") for kernels in (True, False))
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  for path, a in jax.tree.leaves_with_path(theirs):
    b = dict(jax.tree.leaves_with_path(ours))[path]
    assert a.dtype == b.dtype
    np.testing.assert_allclose(b, a, rtol=0, atol=2e-5 * np.abs(a).max(), err_msg=str(path))


def test_bfloat16_is_as_near_to_float32_as_by_xla():
  arch = tiny.arch(width=64, heads=1, depth=1, prune_before=())
  given = drawn(arch)
  exact = gradients(arch, *given, False, "float32")

  def errors(kernels):
    found = gradients(arch, *given, kernels, "bfloat16")
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True)
    return [np.linalg.norm(np.float32(a) - b) / np.linalg.norm(b) for a, b in pairs]

  ours, theirs = errors(True), errors(False)
  assert all(a < 1.2 * b for a, b in zip(ours, theirs, strict=True)), (ours, theirs)
  assert 1e-4 < max(ours) < 0.02


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_slopes_are_the_derivatives(name):
  x = jnp.linspace(-8, 8, 4001)
  value, slope = jax.jit(lambda x: tpu_products.with_slope(name, x))(x)
  np.testing.assert_allclose(value, ACTIVATIONS[name](x), atol=1e-6)
  np.testing.assert_allclose(slope, jax.vmap(jax.grad(ACTIVATIONS[name]))(x), atol=3e-6)


@pytest.mark.parametrize("changes", [dict(swiglu=True), dict(mlp_norm=True), dict(width=1024)])
def test_mlps_that_they_do_not_cover_stay_xlas(changes):
  arch = tiny.arch(**dict(width=64, depth=1, heads=1, prune_before=()) | changes)
  model = vit.model(arch, tiny.params(arch))
  step_kernels.train_mode(model)
  assert model.blocks[0].fused_mlp is None
