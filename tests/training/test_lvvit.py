"""Training of LV-ViT: batch norms and the auxiliary head."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.core.devices import AXIS
from asvit_jax.core.leaves import named
from asvit_jax.losses.criteria import smooth_labels
from asvit_jax.losses.objective import Objective
from asvit_jax.network import Network
from asvit_jax.optimizers.building import build
from asvit_jax.optimizers.groups import decay_mask
from asvit_jax.training import parallel
from asvit_jax.training.step import Options, create_state, make_step
from asvit_jax.vit.batch_norm import is_statistic

ARCH = tiny.arch(depth=3, prune_before=(1, 2), **tiny.LV)


@pytest.fixture(scope="module")
def lvvit():
  """(params, images): thresholds prune differently in each image."""
  images = tiny.images(ARCH, 5)
  return tiny.with_thresholds(ARCH, tiny.params(ARCH), images, (0.7, 0.4)), images


def batch(images=6):
  rng = np.random.default_rng(2)
  size = ARCH.image_size
  return {
    "image": rng.integers(0, 256, (images, size, size, 3), dtype=np.uint8),
    "label": rng.integers(0, ARCH.classes, images).astype(np.int32),
  }


def make(params, optimizer):
  """A step of a network that its own dense one teaches."""
  network = Network(ARCH, params)
  options = Options(label_smoothing=0.1, ema_decay=0.5)
  objective = Objective(target_gmacs=1e-4)
  return make_step(network, network.dense, objective, optimizer, options)


def adamw():
  return build("adamw", 1e-3, 0.5)


def leaves(params, statistics):
  """{name: value} of the running statistics, or of everything else."""
  return {k: v for k, v in named(params) if is_statistic(k) == statistics}


@pytest.fixture(scope="module")
def trained(lvvit):
  """One step of AdamW with weight decay: (state before, state after, metrics)."""
  params, _ = lvvit
  state = create_state(params, adamw(), 0.5)
  step = parallel.parallelize(make(params, adamw()))
  teacher = vit.without_thresholds(params)
  after, values = step(
    parallel.replicate(state), parallel.replicate(teacher), parallel.shard(batch())
  )
  return jax.tree.map(np.array, (params, *parallel.unreplicate((after, values))))


@pytest.mark.slow
def test_a_step_moves_statistics_by_the_batch_and_not_by_the_optimizer(trained):
  params, state, _ = trained
  before, after = leaves(params, True), leaves(state.params, True)
  assert len(before) == 6
  x = tiny.normalize(batch()["image"])
  stem = params["patch_embed"]
  padding = ((3, 3), (3, 3))
  x = jax.lax.conv_general_dilated(
    x, stem["conv1"]["kernel"], (2, 2), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  x = np.asarray(x, np.float64).reshape(-1, 64)
  for name, value in (("mean", x.mean(axis=0)), ("var", x.var(axis=0, ddof=1))):
    expected = 0.9 * stem["bn1"][name] + 0.1 * value
    np.testing.assert_allclose(state.params["patch_embed"]["bn1"][name], expected, rtol=1e-4)
  for name in before:
    assert np.abs(after[name] - before[name]).max() > 1e-3
  # What is averaged: the statistics too.
  for name, value in leaves(state.ema, True).items():
    np.testing.assert_allclose(value, (before[name] + after[name]) / 2, rtol=1e-5, atol=1e-7)


def test_no_gradient_and_no_decay_reaches_statistics(trained):
  _, state, _ = trained
  adam = next(s for s in jax.tree.leaves(state.opt_state, is_leaf=_is_adam) if _is_adam(s))
  for moments in (adam.mu, adam.nu):
    assert all((value == 0).all() for value in leaves(moments, True).values())
  still = [name for name, value in leaves(adam.nu, False).items() if (value == 0).all()]
  assert still == []  # every other parameter learns, both heads and the stem included
  decayed = decay_mask(state.params)
  assert not any(leaves(decayed, True).values())
  assert decayed["patch_embed"]["conv1"]["kernel"]
  assert decayed["aux_head"]["kernel"]


def _is_adam(state):
  return isinstance(state, optax.ScaleByAdamState)


@pytest.mark.slow
def test_two_devices_step_as_one(lvvit, trained):
  # The budget pulls by the mean of all images; the norms and the token term are of the whole batch.
  params, _ = lvvit
  whole, (_, _, expected) = batch(), trained
  state = create_state(params, adamw(), 0.5)
  step = make(params, adamw())
  halves = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), whole)
  program = jax.jit(jax.vmap(step, in_axes=(None, None, 0), axis_name=AXIS))
  after, values = program(state, vit.without_thresholds(params), halves)
  for name, value in expected.items():
    # The slopes of the masks are steep: float32 is 2e-4 from float64 in the norm of a gradient.
    tolerance = 1e-3 if name == "grad_norm" else 1e-4
    np.testing.assert_allclose(values[name][0], value, rtol=tolerance, err_msg=name)
  theirs = leaves(trained[1].params, True)
  for name, value in leaves(after.params, True).items():
    np.testing.assert_allclose(value[0], theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(value[0], value[1])


def test_the_token_term_is_the_mean_divergence_of_the_kept_patches(lvvit):
  params, images = lvvit
  targets = smooth_labels(jnp.arange(5), ARCH.classes, 0.1)
  teacher = tiny.run_dense(ARCH.dense, vit.without_thresholds(tiny.params(ARCH, 1)), images)
  objective = Objective(target_gmacs=1e-4)
  model = vit.model(ARCH, params)
  _, (terms, outputs) = jax.jit(lambda x, t: objective(model, x, targets, t))(images, teacher)
  p = np.asarray(jax.nn.softmax(teacher.aux_logits), np.float64)
  q = np.asarray(jax.nn.softmax(outputs.aux_logits), np.float64)
  divergence = (p * np.log(p / q)).sum(axis=-1)
  keep = np.asarray(outputs.keep[:, -1]) > 0
  np.testing.assert_allclose(terms["token_distillation"], divergence[keep].mean(), rtol=1e-4)
  p, q = (np.asarray(jax.nn.softmax(x.class_logits)) for x in (teacher, outputs))
  expected = (p * np.log(p / q)).sum(axis=-1).mean()
  np.testing.assert_allclose(terms["distillation"], expected, rtol=1e-4)
