"""Optimizers: ours, those of optax, and what surrounds them all."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from asvit_jax.core import keywords, leaves
from asvit_jax.core.errors import InputError
from asvit_jax.optimizers import building
from asvit_jax.optimizers.building import OPTIMIZERS
from asvit_jax.training.train import train
from asvit_jax.vit import batch_norm

ARCH = dataclasses.replace(tiny.TRAINED, depth=2, prune_before=(1,))
# Those of the table, and others of optax: without weight decay, with one of all parameters, from a
# package of its own.
NAMES = (*OPTIMIZERS.names, "adam", "novograd", "optax.contrib:ademamix")
# Muon decays matrices alone, and leaves the kernel of the patches to its own Adam; its iterations
# round by how they are compiled, to 1e-4.
OF_EVERY_KERNEL = tuple(name for name in NAMES if name != "muon")
SOME = "adamw", "novograd"


def create(name="adamw", steps=10, **changes):
  """The optimizer of a config, and its schedule; checked."""
  plan = tiny.plan(tiny.config("", **{"optimizer.name": name} | changes, total_steps=steps))
  building.check(plan.optimizer)
  return building.create(plan.optimizer, plan.schedule), plan.schedule


def step(optimizer, params, grads):
  """{name: update} of the first step."""
  updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
  return dict(leaves.named(updates))


def random_grads(params):
  """Gradients that are nowhere zero."""
  rng = np.random.default_rng(4)

  def draw(x):
    sign = rng.choice([-1.0, 1.0], x.shape)
    return jnp.asarray(sign * rng.uniform(0.1, 1, x.shape), jnp.float32)

  return jax.tree.map(draw, params)


def linear_kernels(arch):
  layers = {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}
  stem = {"patch": {"proj"}, "conv": {"proj", "conv1", "conv2"}}[arch.stem]
  return (
    {f"blocks.{i}.{layer}.kernel" for i in range(arch.depth) for layer in layers}
    | {f"patch_embed.{layer}.kernel" for layer in stem}
    | {"head.kernel"}
  )


def test_weight_decay_shrinks_kernels_and_nothing_else():
  for arch in (ARCH, tiny.arch(stem="conv", depth=1, prune_before=())):
    params = tiny.params(arch)
    optimizer, schedule = create(**{"optimizer.weight_decay": 0.5})
    # Without a gradient, AdamW's update is the decay alone.
    updates = step(optimizer, params, jax.tree.map(jnp.zeros_like, params))
    decayed = set()
    for name, value in leaves.named(params):
      if np.abs(updates[name]).max() > 0:
        decayed.add(name)
        np.testing.assert_allclose(updates[name], -0.5 * schedule(0) * value, rtol=1e-5)
    assert decayed == linear_kernels(arch)


@pytest.mark.parametrize("name", tiny.few(NAMES, *SOME, "muon"))
def test_one_step_moves_every_parameter_that_learns(name):
  params = tiny.params(ARCH)
  updates = step(create(name)[0], params, random_grads(params))
  for leaf, update in updates.items():
    assert np.isfinite(update).all(), leaf
    still = np.asarray(update) == 0
    if leaf.endswith("qkv.bias"):  # key biases are of no use
      np.testing.assert_array_equal(still, np.repeat([False, True, False], len(still) // 3))
    else:
      assert not still.any(), leaf


@pytest.mark.parametrize("name", tiny.few(OF_EVERY_KERNEL, *SOME))
def test_weight_decay_changes_the_step_of_kernels_and_of_nothing_else(name):
  params = tiny.params(ARCH)
  grads = random_grads(params)
  weak, strong = (
    step(create(name, **{"optimizer.weight_decay": decay})[0], params, grads)
    for decay in (0.0, 0.5)
  )
  assert {k for k in weak if (weak[k] != strong[k]).any()} == linear_kernels(ARCH)


@pytest.mark.slow
def test_clipping_is_to_the_norm_of_what_is_not_frozen():
  params = tiny.params(ARCH)
  grads = random_grads(params)
  grads["patch_embed"] = jax.tree.map(lambda x: 1e6 * x, grads["patch_embed"])
  changes = {"optimizer.weight_decay": 0.0, "optimizer.clip_norm": 0.5}
  optimizer, schedule = create("sgd", **changes, **{"optimizer.freeze": "patch_embed|blocks.0"})
  updates = step(optimizer, params, grads)
  frozen = ("patch_embed", "blocks.0")
  rest = {n: np.asarray(g) for n, g in leaves.named(grads) if not n.startswith(frozen)}
  norm = math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in rest.values()))
  assert norm > 5
  for leaf, grad in rest.items():
    moved = updates[leaf] != 0  # key biases are not
    assert moved.mean() > 0.6
    expected = -schedule(0) * grad * 0.5 / norm
    np.testing.assert_allclose(updates[leaf][moved], expected[moved], rtol=1e-5)
  assert not any(np.any(u) for n, u in updates.items() if n.startswith(frozen))


def test_steps_that_changed_something_are_counted_by_the_schedule_of_every_optimizer():
  params = tiny.params(ARCH)
  for name in NAMES:
    optimizer = create(name, **{"optimizer.clip_norm": 1.0, "optimizer.freeze": "norm"})[0]
    state = jax.eval_shape(optimizer.init, params)
    assert building.updates_done(state).dtype == jnp.int32, name
  state = optax.sgd(0.1).init(params)
  assert building.updates_done(state) is None


@pytest.mark.parametrize("name", tiny.few(OF_EVERY_KERNEL, *SOME))
def test_frozen_parameters_stay_and_thresholds_have_their_own_rate(name):
  params = tiny.params(ARCH)
  grads = random_grads(params)
  changes = {"optimizer.freeze": "patch_embed|blocks.0", "optimizer.thresholds_lr": 3.0}
  ours = step(create(name, **changes)[0], params, grads)
  plain = step(create(name)[0], params, grads)
  for leaf, update in ours.items():
    if leaf.startswith(("patch_embed", "blocks.0")):
      assert not np.any(update), leaf
    elif leaf == "thresholds":
      np.testing.assert_allclose(update, 3 * plain[leaf], rtol=1e-6)
    else:
      np.testing.assert_array_equal(update, plain[leaf])


@pytest.mark.parametrize("name", tiny.few(NAMES, *SOME, "muon"))
def test_running_statistics_of_batch_norms_stay(name):
  params = tiny.params(tiny.arch(depth=2, prune_before=(1,), **tiny.LV))
  grads = leaves.map_named(  # as the step has them
    lambda leaf, grad: grad * (not batch_norm.is_statistic(leaf)), random_grads(params)
  )
  updates = step(create(name, **{"optimizer.weight_decay": 0.5})[0], params, grads)
  statistics = {leaf for leaf in updates if batch_norm.is_statistic(leaf)}
  assert len(statistics) == 6
  for leaf in statistics:
    assert not np.any(updates[leaf]), leaf


def test_plain_sgd_decays_as_if_beside_the_gradient():
  params = tiny.params(ARCH)
  grads = random_grads(params)
  optimizer, schedule = create("sgd", **{"optimizer.weight_decay": 0.5})
  updates = step(optimizer, params, grads)
  kernel = dict(leaves.named(params))["head.kernel"]
  expected = -schedule(0) * (dict(leaves.named(grads))["head.kernel"] + 0.5 * kernel)
  np.testing.assert_allclose(updates["head.kernel"], expected, rtol=1e-5)


def test_arguments_reach_the_optimizer():
  params = tiny.params(ARCH)
  changes = {"optimizer.arguments": "b1=0.5, eps=1e-3", "optimizer.weight_decay": 0.0}
  ours = step(create(**changes)[0], params, random_grads(params))
  _, schedule = create()
  theirs = optax.adamw(schedule, b1=0.5, eps=1e-3, weight_decay=0.0)
  expected = step(theirs, params, random_grads(params))
  np.testing.assert_array_equal(ours["head.kernel"], expected["head.kernel"])
  default = step(create()[0], params, random_grads(params))
  assert (ours["head.kernel"] != default["head.kernel"]).any()


def test_values_of_arguments_are_any_literal():
  text = "a=(1, 2.5), b='x,y', c=None,d=-1e-3"
  expected = {"a": (1, 2.5), "b": "x,y", "c": None, "d": -1e-3}
  assert keywords.parse(text, "optimizer.arguments") == expected
  assert keywords.parse("", "optimizer.arguments") == {}


# What a user may bring along, as test_optimizers:….
def heavy(learning_rate, weight_decay, factor=1.0):
  del weight_decay
  return optax.chain(optax.scale(factor), optax.scale_by_learning_rate(learning_rate))


def growing(learning_rate):
  return optax.stateless(
    lambda updates, _: jax.tree.map(lambda x: x[None] * learning_rate(0), updates)
  )


def test_an_optimizer_of_your_own_is_found_and_decays_kernels_alone():
  params = tiny.params(ARCH)
  changes = {"optimizer.arguments": "factor=2.0", "optimizer.weight_decay": 0.5}
  optimizer, schedule = create("test_optimizers:heavy", **changes)
  updates = step(optimizer, params, jax.tree.map(jnp.zeros_like, params))
  kernel = dict(leaves.named(params))["head.kernel"]
  np.testing.assert_allclose(updates["head.kernel"], -2 * schedule(0) * 0.5 * kernel, rtol=1e-5)
  assert not np.any(updates["thresholds"])


@pytest.mark.parametrize(
  ("name", "arguments", "message"),
  [
    (
      "adamv",
      "",
      r"'adamv' is not known: choose from adamw, .*any other of optax, or give your own",
    ),
    ("", "", r"optimizer\.name '' is not known"),
    ("clip", "", r"'clip' is not an optimizer: its first argument is not learning_rate"),
    ("optax:nothing", "", r"'optax:nothing' cannot be imported"),
    ("lbfgs", "", r"'lbfgs' cannot be used here .*gives it only gradients and parameters"),
    ("noisy_sgd", "", r"'noisy_sgd' cannot be used here: its state has values other than numbers"),
    ("test_optimizers:growing", "", r"updates differ from the parameters in shape"),
    ("sm3", "", r"'sm3' cannot be created with these arguments"),
    ("adamw", "b1", r"optimizer\.arguments 'b1' cannot be read: expected .*'b1=0\.9,b2=0\.95'"),
    ("adamw", "b1=beta", r"optimizer\.arguments 'b1=beta' cannot be read"),
    ("adamw", "b1=0.9,b1=0.8", r"cannot be read"),
    ("adamw", "b1=0.9)(b2=0.9", r"cannot be read"),
    ("adamw", "**{}", r"cannot be read"),
    ("adamw", "b3=0.9", r"b3 is not known to optimizer 'adamw'; it takes b1, b2, eps"),
    ("adamw", "learning_rate=0.1", r"sets learning_rate: optimizer\.lr is its key"),
    ("adamw", "name=1", r"name is not known"),
    ("adamw", "b1='a'", r"'adamw' cannot be used here with optimizer\.arguments .*\(TypeError"),
  ],
)
def test_what_cannot_work_is_one_error_before_anything_is_opened(
  tmp_path, tiny_variant, name, arguments, message
):
  changes = {"optimizer.name": name, "optimizer.arguments": arguments}
  with pytest.raises(InputError, match=message):
    train(tiny.config(tmp_path / "no such data", **changes), tmp_path / "run")
  assert not (tmp_path / "run").exists()
