import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import nnx

from asvit_jax import losses, packing, vit, weights
from asvit_jax.data import transforms
from asvit_jax.training import optimizer, parallel
from asvit_jax.training.step import AXIS, Objective, create_state, make_step

ARCH = tiny.arch(depth=4, prune_before=(1, 2, 3), **tiny.LV)
STAGES = len(ARCH.prune_before)


@pytest.fixture(autouse=True)
def short_ladders(monkeypatch):
  """Few rungs compile fast; test_packing tries them all."""
  monkeypatch.setattr(packing, "LENGTHS", 4)
  monkeypatch.setattr(packing, "WIDTHS", 2)


@pytest.fixture(scope="module")
def lvvit():
  """(params, images): thresholds prune differently in each image."""
  images = tiny.images(ARCH, 5)
  return tiny.with_thresholds(ARCH, tiny.params(ARCH), images, (0.7, 0.5, 0.3)), images


@functools.cache
def _program():
  return jax.jit(lambda p, x: packing.packed(tiny.model(ARCH, p), x))


def run_packed(params, images):
  return _program()(params, images)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("thresholds", [None, -1.0, 1.0], ids=["mixed", "all kept", "none kept"])
def test_packed_equals_masked(lvvit, count, thresholds):
  params, images = lvvit
  if thresholds is not None:
    params = params | {"thresholds": np.full(STAGES, thresholds, np.float32)}
  masked = tiny.run_masked(ARCH, params, images)
  packed = run_packed(params, images[:count])
  np.testing.assert_array_equal(packed.keep, masked.keep[:count])
  np.testing.assert_allclose(packed.logits, masked.logits[:count], atol=3e-5)
  if thresholds is None:
    assert len(np.unique(np.asarray(masked.kept), axis=0)) > 2  # images keep different numbers


def test_masked_and_packed_with_every_token_equal_dense(lvvit):
  params, images = lvvit
  dense = tiny.run_dense(ARCH, params, images)
  params = params | {"thresholds": np.full(STAGES, -1, np.float32)}
  for ours in (tiny.run_masked(ARCH, params, images), run_packed(params, images)):
    np.testing.assert_allclose(ours.logits, dense.logits, atol=3e-5)


def test_the_prediction_adds_half_the_best_auxiliary_logit_of_the_kept_patches(lvvit):
  params, images = lvvit
  # Packed returns neither head, and never computes a pruned token: masked tells what to expect.
  masked = tiny.run_masked(ARCH, params, images)
  tokens, keep = np.asarray(masked.tokens, np.float64), np.asarray(masked.keep[:, -1]) > 0
  head, aux = ({k: np.asarray(v) for k, v in params[name].items()} for name in ("head", "aux_head"))
  changed = 0
  for i in range(len(images)):
    class_logits = tokens[i, 0] @ head["kernel"] + head["bias"]
    aux_logits = tokens[i, 1:] @ aux["kernel"] + aux["bias"]
    expected = class_logits + 0.5 * aux_logits[keep[i]].max(axis=0)
    np.testing.assert_allclose(masked.class_logits[i], class_logits, atol=1e-5)
    np.testing.assert_allclose(masked.aux_logits[i], aux_logits, atol=1e-5)
    np.testing.assert_allclose(masked.logits[i], expected, atol=1e-5)
    changed += (aux_logits.max(axis=0) > aux_logits[keep[i]].max(axis=0) + 0.01).any()
  assert changed  # a pruned token would have changed some prediction


def test_without_a_kept_patch_the_class_head_predicts_alone(lvvit):
  params, images = lvvit
  params = params | {"thresholds": np.full(STAGES, 1, np.float32)}
  masked = tiny.run_masked(ARCH, params, images)
  np.testing.assert_array_equal(masked.logits, masked.class_logits)
  for ours in (masked, run_packed(params, images), run_packed(params, images[:1])):
    assert np.isfinite(ours.logits).all()
    np.testing.assert_allclose(ours.logits, masked.class_logits[: len(ours.logits)], atol=3e-5)


def test_a_pytorch_forward_of_the_published_names_gives_the_same_logits(lvvit):
  pytest.importorskip("torch")
  import torch_lvvit

  params, images = lvvit
  params = vit.without_thresholds(params)
  expected = torch_lvvit.forward(weights.to_timm(params), images, ARCH.heads)
  ours = tiny.run_dense(ARCH.dense, params, images)
  for a, b in zip((ours.logits, ours.class_logits, ours.aux_logits), expected, strict=True):
    np.testing.assert_allclose(a, b, atol=3e-5)


def forward_in_training(norm, x, axis=None):
  """(result, running mean, running variance) of a batch norm in training."""
  graphdef, params = vit.split(norm)

  def run(x):
    model = nnx.merge(graphdef, params)
    model.set_attributes(use_running_average=False, axis_name=axis)
    y = model(x)
    return y, model.mean[...], model.var[...]

  return run(x) if axis is None else jax.vmap(run, axis_name=axis)(x)


@pytest.fixture
def norm():
  rng = np.random.default_rng(4)
  norm = vit.BatchNorm(6, momentum=0.9, epsilon=1e-5, use_running_average=True, rngs=nnx.Rngs(0))
  for leaf, value in (("scale", 1.5), ("bias", 0.3), ("mean", -0.2), ("var", 2.0)):
    getattr(norm, leaf)[...] = jnp.asarray(value + 0.1 * rng.standard_normal(6), jnp.float32)
  return norm, (3 * rng.standard_normal((4, 3, 2, 6)) + 1).astype(np.float32)


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


def batch(images=6):
  rng = np.random.default_rng(2)
  size = ARCH.image_size
  return {
    "image": rng.integers(0, 256, (images, size, size, 3), dtype=np.uint8),
    "label": rng.integers(0, ARCH.classes, images).astype(np.int32),
  }


def make(params, objective, optimizer_, ema_decay=0.0):
  graphdef, _ = vit.abstract(ARCH)
  teacher, _ = vit.abstract(ARCH.dense)
  return make_step(graphdef, teacher, objective, optimizer_, 0.1, ema_decay)


def leaves(params, statistics):
  """{path: value} of the running statistics, or of everything else."""
  paths = jax.tree_util.tree_leaves_with_path(params)
  return {jax.tree_util.keystr(p): v for p, v in paths if vit.is_statistic(p) == statistics}


@pytest.fixture(scope="module")
def trained(lvvit):
  """One step of AdamW with weight decay: (state before, state after, metrics)."""
  params, _ = lvvit
  objective = Objective(target_gmacs=1e-4)
  optimizer_ = optimizer.adamw(1e-3, weight_decay=0.5)
  state = create_state(params, optimizer_, 0.5)
  step = parallel.parallelize(make(params, objective, optimizer_, 0.5))
  teacher = vit.without_thresholds(params)
  after, values = step(
    parallel.replicate(state), parallel.replicate(teacher), parallel.shard(batch())
  )
  return jax.tree.map(np.array, (params, *parallel.unreplicate((after, values))))


def test_a_step_moves_statistics_by_the_batch_and_not_by_the_optimizer(trained):
  params, state, _ = trained
  before, after = leaves(params, True), leaves(state.params, True)
  assert len(before) == 6
  x = transforms.normalize(batch()["image"])
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


@pytest.mark.parametrize(("freeze", "stay"), [("patch_embed", 3), (r"bn2", 1)])
def test_frozen_batch_norms_stay_as_in_evaluation(lvvit, freeze, stay):
  params, images = lvvit

  @jax.jit
  def forward(params):
    model = tiny.model(ARCH, params)
    vit.train_mode(model, freeze=freeze)
    return model.patch_embed(images), vit.update_statistics(params, model)

  embedded, moved = forward(params)
  same = jax.tree.map(lambda a, b: bool((a == b).all()), moved, params)["patch_embed"]
  assert sum(norm["mean"] and norm["var"] for norm in map(same.get, ("bn1", "bn2", "bn3"))) == stay
  in_evaluation = jax.jit(lambda p: tiny.model(ARCH, p).patch_embed(images))(params)
  assert np.allclose(embedded, in_evaluation, atol=1e-5) == (stay == 3)


def test_no_gradient_and_no_decay_reaches_statistics(trained):
  _, state, _ = trained
  adam = next(s for s in jax.tree.leaves(state.opt_state, is_leaf=_is_adam) if _is_adam(s))
  for moments in (adam.mu, adam.nu):
    assert all((value == 0).all() for value in leaves(moments, True).values())
  still = [name for name, value in leaves(adam.nu, False).items() if (value == 0).all()]
  assert still == []  # every other parameter learns, both heads and the stem included
  decayed = optimizer.decay_mask(state.params)
  assert not any(leaves(decayed, True).values())
  assert decayed["patch_embed"]["conv1"]["kernel"]
  assert decayed["aux_head"]["kernel"]


def _is_adam(state):
  return isinstance(state, optax.ScaleByAdamState)


def test_two_devices_step_as_one(lvvit, trained):
  # The budget pulls by the mean of all images; the norms and the token term are of the whole batch.
  params, _ = lvvit
  whole, (_, _, expected) = batch(), trained
  optimizer_ = optimizer.adamw(1e-3, weight_decay=0.5)
  state = create_state(params, optimizer_, 0.5)
  step = make(params, Objective(target_gmacs=1e-4), optimizer_, 0.5)
  halves = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), whole)
  program = jax.jit(jax.vmap(step, in_axes=(None, None, 0), axis_name=AXIS))
  after, values = program(state, vit.without_thresholds(params), halves)
  for name, value in expected.items():
    np.testing.assert_allclose(values[name][0], value, rtol=1e-4, err_msg=name)
  theirs = leaves(trained[1].params, True)
  for name, value in leaves(after.params, True).items():
    np.testing.assert_allclose(value[0], theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(value[0], value[1])


def test_the_token_term_is_the_mean_divergence_of_the_kept_patches(lvvit):
  params, images = lvvit
  targets = losses.smooth_labels(jnp.arange(5), ARCH.classes, 0.1)
  teacher = tiny.run_dense(ARCH.dense, vit.without_thresholds(tiny.params(ARCH, 1)), images)
  objective = Objective(target_gmacs=1e-4)
  model = tiny.model(ARCH, params)
  _, (terms, outputs) = jax.jit(lambda x, t: objective(model, x, targets, t))(images, teacher)
  p = np.asarray(jax.nn.softmax(teacher.aux_logits), np.float64)
  q = np.asarray(jax.nn.softmax(outputs.aux_logits), np.float64)
  divergence = (p * np.log(p / q)).sum(axis=-1)
  keep = np.asarray(outputs.keep[:, -1]) > 0
  np.testing.assert_allclose(terms["token_distillation"], divergence[keep].mean(), rtol=1e-4)
  p, q = (np.asarray(jax.nn.softmax(x.class_logits)) for x in (teacher, outputs))
  expected = (p * np.log(p / q)).sum(axis=-1).mean()
  np.testing.assert_allclose(terms["distillation"], expected, rtol=1e-4)
