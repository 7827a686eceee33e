"""Batch norm as PyTorch has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from asvit_jax import vit
from asvit_jax.vit import batch_norm

ARCH = tiny.arch(depth=4, prune_before=(1, 2, 3), **tiny.LV)


def forward_in_training(norm, x, axis=None):
  """(result, running mean, running variance) of a batch norm in training."""

  def run(x):
    model = nnx.clone(norm)
    model.set_attributes(use_running_average=False, axis_name=axis)
    y = model(x)
    return y, model.mean[...], model.var[...]

  return run(x) if axis is None else jax.vmap(run, axis_name=axis)(x)


@pytest.fixture
def norm():
  rng = np.random.default_rng(4)
  norm = batch_norm.BatchNorm(
    6, momentum=0.9, epsilon=1e-5, use_running_average=True, rngs=nnx.Rngs(0)
  )
  for leaf, value in (("scale", 1.5), ("bias", 0.3), ("mean", -0.2), ("var", 2.0)):
    getattr(norm, leaf)[...] = jnp.asarray(value + 0.1 * rng.standard_normal(6), jnp.float32)
  return norm, (3 * rng.standard_normal((4, 3, 2, 6)) + 1).astype(np.float32)


@pytest.mark.external
def test_running_statistics_are_those_of_pytorch(norm):
  torch = pytest.importorskip("torch")
  norm, x = norm
  theirs = torch.nn.BatchNorm2d(6)
  ours = {"weight": norm.scale, "bias": norm.bias, "running_mean": norm.mean}
  ours = {k: torch.tensor(np.array(v[...])) for k, v in (ours | {"running_var": norm.var}).items()}
  theirs.load_state_dict(ours, strict=False)
  expected = theirs.train()(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
  y, mean, var = forward_in_training(norm, x)
  np.testing.assert_allclose(y, expected.detach(), atol=1e-5)
  np.testing.assert_allclose(mean, theirs.running_mean, atol=1e-6)
  np.testing.assert_allclose(var, theirs.running_var, rtol=1e-5)
  biased = 0.9 * norm.var[...] + 0.1 * x.var(axis=(0, 1, 2))
  assert np.abs(var - biased).max() > 1e-3  # of 24 numbers: which variance it is shows


def test_statistics_over_devices_are_those_of_the_whole_batch(norm):
  norm, x = norm
  whole = forward_in_training(norm, x)
  y, mean, var = forward_in_training(norm, x.reshape(2, 2, *x.shape[1:]), axis="data")
  np.testing.assert_allclose(y.reshape(x.shape), whole[0], atol=1e-5)
  for i in range(2):
    np.testing.assert_allclose(mean[i], whole[1], atol=1e-6)
    np.testing.assert_allclose(var[i], whole[2], rtol=1e-5)
  alone = forward_in_training(norm, x[:2])
  assert np.abs(alone[2] - whole[2]).max() > 1e-3


@pytest.mark.parametrize(("freeze", "stay"), [("patch_embed", 3), (r"bn2", 1)])
def test_frozen_batch_norms_stay_as_in_evaluation(freeze, stay):
  params, images = tiny.params(ARCH), tiny.images(ARCH, 5)

  @jax.jit
  def forward(params):
    model = vit.model(ARCH, params)
    batch_norm.train_mode(model, freeze=freeze)
    return model.patch_embed(images), batch_norm.update_statistics(params, model)

  embedded, moved = forward(params)
  same = jax.tree.map(lambda a, b: bool((a == b).all()), moved, params)["patch_embed"]
  assert sum(norm["mean"] and norm["var"] for norm in map(same.get, ("bn1", "bn2", "bn3"))) == stay
  in_evaluation = jax.jit(lambda p: vit.model(ARCH, p).patch_embed(images))(params)
  assert np.allclose(embedded, in_evaluation, atol=1e-5) == (stay == 3)
