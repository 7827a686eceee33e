"""The step of one device: its loss, its metrics, and what it does to the state."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
import tiny

from asvit_jax.losses.objective import Objective
from asvit_jax.network import Network
from asvit_jax.sparsity.complexity import dense_gmacs
from asvit_jax.training import parallel
from asvit_jax.training.step import Options, create_state, make_step

ARCH = tiny.TRAINED
DENSE = dataclasses.replace(ARCH.dense, depth=2)


def differs(ours, theirs):
  return any(
    (a != b).any() for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
  )


def batch(count=8):
  rng = np.random.default_rng(2)
  return {
    "image": rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8),
    "label": rng.integers(0, 3, count).astype(np.int32),
  }


def run_steps(arch, params, objective, optimizer, steps, ema_decay=0.0, images=8):
  """Steps on one batch; the states and metrics after each."""
  network = Network(arch, params)
  teacher = network.dense if network.prunes else None
  options = Options(label_smoothing=0.1, ema_decay=ema_decay)
  step = parallel.parallelize(make_step(network, teacher, objective, optimizer, options))
  state = parallel.replicate(create_state(params, optimizer, ema_decay))
  teacher_params = parallel.replicate(teacher.params if teacher else ())
  history = []
  for _ in range(steps):
    state, values = step(state, teacher_params, parallel.shard(batch(images)))
    history.append(jax.tree.map(np.array, parallel.unreplicate((state, values))))
  return history


@pytest.mark.parametrize(
  ("start", "aim"), [(0.9, 0.6), pytest.param(0.4, 0.7, marks=pytest.mark.slow)]
)
def test_the_budget_term_moves_gmacs_towards_its_target(start, aim):
  images = tiny.normalize(batch(48)["image"])
  shares = (0.9, 0.8, 0.7) if start > aim else (0.2, 0.15, 0.1)
  params = tiny.with_thresholds(ARCH, tiny.params(ARCH), images, shares)
  target = aim * dense_gmacs(ARCH)
  # The network is so small that an ordinary weight would leave gradients below Adam's epsilon.
  weights = {"classification": 0.0, "budget": 1e8, "distillation": 0.0}
  objective = Objective(weights, target)
  # The thresholds alone: other weights could only follow them.
  labels = {name: name == "thresholds" for name in params}
  only = optax.chain(
    optax.adam(4e-3),
    optax.masked(
      optax.set_to_zero(),
      lambda p: {name: jax.tree.map(lambda _, n=name: not labels[n], p[name]) for name in p},
    ),
  )
  history = run_steps(ARCH, params, objective, only, 60, images=48)
  distance = [abs(float(values["gmacs"]) - target) for _, values in history]
  assert distance[0] > 0.1 * target
  assert distance[-1] < 0.7 * distance[0]
  moved = history[-1][0].params["thresholds"] - params["thresholds"]
  assert (np.sign(moved) == np.sign(start - aim)).any()


def test_metrics_of_a_step_are_those_of_the_weights_before_it():
  params = tiny.params(DENSE)
  (state, values), *_ = run_steps(DENSE, params, Objective(), optax.sgd(0.1), 1)
  data = batch()
  logits = np.asarray(
    tiny.run_dense(DENSE, params, tiny.normalize(data["image"])).logits, np.float64
  )
  targets = np.eye(3)[data["label"]] * 0.9 + 0.1 / 3
  likelihood = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
  assert values["loss"] == pytest.approx(-(targets * likelihood).sum() / 8, rel=1e-5)
  assert values["accuracy"] == pytest.approx(100 * (logits.argmax(1) == data["label"]).mean())
  assert int(state.step) == 1
  moved = jax.tree.map(lambda a, b: (np.asarray(a) - b) / 0.1, params, state.params)
  assert values["grad_norm"] == pytest.approx(float(optax.tree.norm(moved)), rel=1e-3)


def test_a_step_whose_gradient_is_not_finite_changes_nothing_but_the_counters():
  params = tiny.params(DENSE)
  sgd = optax.sgd(0.1)

  def update(grads, state, params):
    updates, state = sgd.update(grads, state, params)
    return jax.tree.map(lambda x: x + 1, updates), state

  bias = params["head"]["bias"].at[0].set(np.inf)
  params = params | {"head": params["head"] | {"bias": bias}}
  moving = optax.GradientTransformation(sgd.init, update)
  history = run_steps(DENSE, params, Objective(), moving, 2, ema_decay=0.5)
  for i, (state, values) in enumerate(history, 1):
    assert not np.isfinite(values["loss"])
    assert (int(state.step), int(state.skipped), int(values["skipped"])) == (i, i, i)
    assert not differs((state.params, state.ema), (params, params))


def test_the_learning_rate_that_is_reported_is_the_one_applied_after_skipped_steps():
  """Three steps, of which the second is skipped for a bias that is not a number."""
  optimizer = optax.sgd(optax.linear_schedule(0.4, 0.0, 4))
  params = tiny.params(DENSE)
  step = parallel.parallelize(make_step(Network(DENSE, params), None, Objective(), optimizer))
  state = create_state(params, optimizer, 0.0)
  updates = []
  for scale in (1, np.nan, 1):
    before, head = state, state.params["head"]
    broken = state.params | {"head": head | {"bias": head["bias"] * scale}}
    state = parallel.replicate(dataclasses.replace(state, params=broken))
    state, values = parallel.unreplicate(step(state, (), parallel.shard(batch())))
    updates.append(int(values["updates"]))
    if np.isnan(scale):
      state = dataclasses.replace(state, params=before.params)
  assert updates == [0, 1, 1]
  assert int(state.step) == 3
  moved = optax.tree.norm(jax.tree.map(np.subtract, before.params, state.params))
  assert float(moved) == pytest.approx(0.3 * float(values["grad_norm"]), rel=1e-3)


def test_the_step_is_compiled_once():
  traces = []
  sgd = optax.sgd(0.1)

  def update(*arguments):
    traces.append(1)  # runs when the step is traced, not when it runs
    return sgd.update(*arguments)

  params = tiny.params(DENSE)
  counted = optax.GradientTransformation(sgd.init, update)
  run_steps(DENSE, params, Objective(), counted, 3, ema_decay=0.5)
  assert len(traces) == 1


def test_averaged_weights_of_two_steps_by_hand():
  params = tiny.params(DENSE)
  history = run_steps(DENSE, params, Objective(), optax.sgd(0.5), 2, ema_decay=0.75)
  (first, _), (second, _) = history
  expected = jax.tree.map(
    lambda p0, p1, p2: 0.75 * (0.75 * p0 + 0.25 * p1) + 0.25 * p2,
    params,
    first.params,
    second.params,
  )
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
  jax.tree.map(close, second.ema, expected)
  assert differs(second.ema, second.params)
