"""Programs run whatever rules of promotion a process is set to, with the same numbers to the bit."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.comparison.contenders import Prunings, prepare
from asvit_jax.comparison.methods import METHODS
from asvit_jax.core import promotion
from asvit_jax.evaluation import one_pass
from asvit_jax.export.artifacts import load_artifact
from asvit_jax.losses.objective import Objective
from asvit_jax.training import parallel
from asvit_jax.training.step import Options, create_state, make_step

MODES = {
  "rank": functools.partial(jax.numpy_rank_promotion, "raise"),
  "dtype": functools.partial(jax.numpy_dtype_promotion, "strict"),
}
DIST = dict(dist_token=True, dist_head=True)
KINDS = {
  "drop": tiny.arch(),
  "merge": tiny.arch(reduction="merge"),
  "novelty": tiny.arch(score="attention_novelty", reduction="merge", layer_scale=True),
  "LV-ViT": tiny.arch(**tiny.LV),
  "distillation token": tiny.arch(**DIST, reduction="merge"),
  "convolutions": tiny.arch(stem="conv"),
}
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
SMALL = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(params=MODES)
def mode(request):
  """A context that sets one of the rules."""
  return MODES[request.param]


def network(arch, **fields):
  return tiny.network(arch, **fields).with_thresholds([0.02, 0.03, 0.04])


def test_the_modes_find_what_they_are_for_and_the_package_does_not_mind(mode):
  def mixed():
    return jnp.ones((2, 3), jnp.bfloat16) + jnp.ones(3, jnp.float32)

  with mode():
    with pytest.raises(Exception, match="broadcast|promotion"):
      mixed()
    assert promotion.usual(mixed)().shape == (2, 3)
    with pytest.raises(Exception, match="broadcast|promotion"):
      mixed()


@pytest.mark.parametrize("execution", ["dense", "masked", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_network_is_traced_in_every_execution(mode, kind, execution):
  pixels = jax.ShapeDtypeStruct(PIXELS.shape, jnp.uint8)
  for dtype in ("float32", "bfloat16"):
    with mode():
      ours = network(KINDS[kind], dtype=dtype)
      found = jax.eval_shape(lambda n, x: n.apply(x, execution, True), ours, pixels)
    assert found.logits.shape == (4, 5)


def test_forward_and_calibration_are_the_same_to_the_bit(mode, short_ladders):
  ours = network(tiny.TRAINED)
  usual = [ours(SMALL, execution).logits for execution in ("dense", "masked", "packed")]
  thresholds = ours.dense.calibrate(SMALL, (0.6, 0.8)).at(0.7).params["thresholds"]
  kept = np.array([[10.0, 8.0, 4.0]])
  with mode():
    for execution, expected in zip(("dense", "masked", "packed"), usual, strict=True):
      np.testing.assert_array_equal(ours(SMALL, execution).logits, expected)
      floats = jnp.asarray(ours.preprocessing.normalize(SMALL))
      np.testing.assert_allclose(ours(floats, execution).logits, expected, atol=2e-5)
    found = ours.dense.calibrate(SMALL, (0.6, 0.8)).at(0.7)
    np.testing.assert_array_equal(found.params["thresholds"], thresholds)
    costs = ours.gmacs(kept), ours.real_gmacs(kept)
    jax.tree.map(np.testing.assert_array_equal, vit.initial_params(tiny.TRAINED), initial())
  np.testing.assert_array_equal(costs, (ours.gmacs(kept), ours.real_gmacs(kept)))


@functools.cache
def initial():
  return vit.initial_params(tiny.TRAINED)


def test_a_gradient_taken_by_a_user_is_the_same(mode):
  ours = network(tiny.TRAINED)

  def loss(params, execution):
    return ours.with_params(params).apply(SMALL, execution).logits.sum()

  for execution in ("dense", "masked"):
    expected = jax.grad(loss)(ours.params, execution)
    with mode():
      jax.tree.map(np.testing.assert_array_equal, jax.grad(loss)(ours.params, execution), expected)


@pytest.mark.parametrize("lv", [False, True], ids=["DeiT", "LV-ViT"])
def test_a_training_step_is_the_same_to_the_bit(mode, lv):
  arch = dataclasses.replace(tiny.TRAINED, **(tiny.LV if lv else {}))
  ours = network(arch, dtype="bfloat16" if lv else "float32")
  optimizer = optax.adamw(1e-3)

  def run():
    objective = Objective(weights={"classification": 1.0, "distillation": 0.5, "budget": 1.0})
    options = Options(label_smoothing=0.1, ema_decay=0.5, accumulate=1 + lv, drop_path=0.1)
    objective = dataclasses.replace(objective, target_gmacs=0.6 * ours.dense_gmacs)
    step = parallel.parallelize(make_step(ours, ours.dense, objective, optimizer, options))
    state = parallel.replicate(create_state(ours.params, optimizer, 0.5))
    batch = {"image": SMALL, "label": np.arange(8) % 3}
    state, metrics = step(state, parallel.replicate(ours.dense.params), parallel.shard(batch))
    return jax.device_get((state.params, state.ema, metrics))

  expected = run()
  with mode():
    jax.tree.map(np.testing.assert_array_equal, run(), expected)


def test_export_and_evaluation_are_the_same(mode, tmp_path, short_ladders):
  ours = network(tiny.TRAINED)
  expected = jax.device_get(one_pass.classify(ours, SMALL, "masked"))
  with mode():
    found = jax.device_get(one_pass.classify(ours, SMALL, "masked"))
    ours.export(tmp_path / "a.zip", "stablehlo", batch_sizes=[2], tokens=True)
    logits, _ = load_artifact(tmp_path / "a.zip")(SMALL)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  np.testing.assert_allclose(logits, ours(SMALL, "masked").logits, atol=2e-5)


@pytest.mark.parametrize("name", list(METHODS))
def test_methods_to_compare_are_traced(mode, name):
  dense = tiny.network(tiny.TRAINED).dense
  with mode():
    contender = prepare(name, 0.8, dense, Prunings.of(dense))
    pixels = jax.ShapeDtypeStruct(SMALL.shape, jnp.uint8)
    found = jax.eval_shape(contender.execution(), contender.network, pixels)
  assert found.logits.shape == (8, 3)
