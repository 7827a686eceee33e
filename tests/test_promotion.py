"""Programs run under any rules of promotion of a process, with the same numbers to the bit."""

import contextlib
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
from asvit_jax.core.devices import local_mesh
from asvit_jax.evaluation import one_pass
from asvit_jax.export.artifacts import load_artifact
from asvit_jax.losses.objective import Objective
from asvit_jax.training import parallel
from asvit_jax.training.step import Options, create_state, make_step

MODES = {
  "rank": functools.partial(jax.numpy_rank_promotion, "raise"),
  "dtype": functools.partial(jax.numpy_dtype_promotion, "strict"),
}


@contextlib.contextmanager
def both():
  """A context that sets all rules."""
  with MODES["rank"](), MODES["dtype"]():
    yield


DIST = dict(dist_token=True, dist_head=True)
KINDS = {
  "drop": tiny.arch(),
  "merge": tiny.arch(reduction="merge"),
  "novelty": tiny.arch(score="attention_novelty", reduction="merge", layer_scale=True),
  "LV-ViT": tiny.arch(**tiny.LV),
  "distillation token": tiny.arch(**DIST, reduction="merge"),
  "convolutions": tiny.arch(stem="conv"),
}
SHORT = dataclasses.replace(tiny.TRAINED, depth=2, prune_before=(1,))
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
    with pytest.raises(Exception, match=r"broadcast|promotion"):
      mixed()
    assert promotion.usual(mixed)().shape == (2, 3)
    with pytest.raises(Exception, match=r"broadcast|promotion"):
      mixed()


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["dense", "masked", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_network_is_traced_in_every_execution(kind, execution, short_ladders):
  pixels = jax.ShapeDtypeStruct(PIXELS.shape, jnp.uint8)
  for dtype in ("float32", "bfloat16"):
    with both():
      ours = network(KINDS[kind], dtype=dtype)
      found = jax.eval_shape(lambda n, x: n.apply(x, execution, True), ours, pixels)
    assert found.logits.shape == (4, 5)


def program(function, *args):
  """What is compiled of a function: programs of one text give the same numbers to the bit."""
  return jax.jit(function).lower(*args).as_text()


@pytest.mark.parametrize(
  "execution", ["masked", "packed", pytest.param("dense", marks=pytest.mark.slow)]
)
def test_programs_are_the_same(execution, short_ladders):
  ours = tiny.network(SHORT).with_thresholds([0.02])
  floats = ours.preprocessing.normalize(SMALL)

  def loss(network, images):
    return network.apply(images, execution).logits.sum()

  def programs():
    return [
      program(lambda n, x: n.apply(x, execution), ours, SMALL),
      program(lambda n, x: n.apply(x, execution).logits, ours, floats),
      *([program(jax.grad(loss), ours, floats)] if execution != "packed" else []),
      one_pass.program.__wrapped__(execution, local_mesh()).lower(ours, SMALL).as_text(),
    ]

  usual = programs()
  with both():
    assert programs() == usual


def test_calibration_is_the_same_to_the_bit():
  dense, kept = tiny.network(tiny.TRAINED).dense, np.array([[10.0, 8.0, 4.0]])

  def run():
    found = dense.calibrate(SMALL, (0.8, 0.9)).at(0.85)
    return (
      found.params["thresholds"],
      dense.gmacs(kept),
      dense.real_gmacs(kept),
      vit.initial_params(tiny.TRAINED),
    )

  usual = run()
  with both():
    jax.tree.map(np.testing.assert_array_equal, run(), usual)


@pytest.mark.slow
@pytest.mark.parametrize("lv", [False, True], ids=["DeiT", "LV-ViT"])
def test_a_training_step_is_the_same(lv):
  arch = dataclasses.replace(SHORT, **(tiny.LV if lv else {}))
  ours = tiny.network(arch, dtype="bfloat16" if lv else "float32").with_thresholds([0.02])
  optimizer = optax.adamw(1e-3)
  weights = {"classification": 1.0, "distillation": 0.5, "budget": 1.0}
  objective = Objective(weights=weights, target_gmacs=0.6 * ours.dense_gmacs)
  options = Options(label_smoothing=0.1, ema_decay=0.5, accumulate=1 + lv, drop_path=0.1)

  def step():
    run = parallel.parallelize(make_step(ours, ours.dense, objective, optimizer, options))
    state = create_state(ours.params, optimizer, 0.5)
    batch = {"image": SMALL, "label": np.arange(8) % 3}
    state, batch = parallel.replicate(state), parallel.shard(batch)
    return run.lower(state, parallel.replicate(ours.dense.params), batch).as_text()

  usual = step()
  with both():
    assert step() == usual


@pytest.mark.slow
def test_artifacts_are_written_and_run(tmp_path):
  ours = tiny.network(tiny.TRAINED).dense
  with both():
    ours.export(tmp_path / "a.zip", "stablehlo", tokens=True)
    logits, _ = load_artifact(tmp_path / "a.zip")(SMALL)
  np.testing.assert_allclose(logits, ours(SMALL).logits, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(METHODS))
def test_methods_to_compare_are_traced(name):
  dense = tiny.network(tiny.TRAINED).dense
  with both():
    contender = prepare(name, 0.8, dense, Prunings.of(dense))
    pixels = jax.ShapeDtypeStruct(SMALL.shape, jnp.uint8)
    found = jax.eval_shape(contender.execution(), contender.network, pixels)
  assert found.logits.shape == (8, 3)
