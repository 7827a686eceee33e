import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from asvit_jax import checkpoint, complexity, vit, weights
from asvit_jax.data import transforms
from asvit_jax.training import loop, metrics, optimizer, parallel
from asvit_jax.training.step import Objective, create_state, make_step

ARCH = tiny.TRAINED
TESTS = Path(__file__).parent

pytestmark = pytest.mark.usefixtures("tiny_variant")


@pytest.fixture
def dense_weights(tmp_path):
  path = tmp_path / "dense.safetensors"
  weights.save(path, tiny.params(ARCH.dense))
  return path


def pruned_config(folder, init_from, **changes):
  return tiny.config(
    folder, **{"init_from": str(init_from), "budget": 0.6, "thresholds": "calibrated"} | changes
  )


def saved(config, workdir):
  """The whole `TrainState` of the last checkpoint of a run."""
  params = tiny.params(ARCH if config.budget is not None else ARCH.dense)
  optimizer_, _ = optimizer.create(config, config.total_steps)
  target = jax.eval_shape(lambda: create_state(params, optimizer_, config.ema_decay))
  return jax.tree.map(np.asarray, checkpoint.Checkpoints(workdir).restore(target))


def lines(workdir):
  """What a run wrote, without how fast it was."""
  return [
    {k: v for k, v in line.items() if k not in ("images_per_s", "data_wait")}
    for line in metrics.read(workdir)
  ]


def assert_identical(ours, theirs):
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def differs(ours, theirs):
  return any(
    (a != b).any() for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
  )


class Killed(Exception):
  """Stands for what ends a process."""


@pytest.fixture
def teachers(monkeypatch):
  """What every step of every run gets as the teacher's weights, after it ran."""
  seen, parallelize = [], parallel.parallelize

  def spied(step, kind):
    step = parallelize(step, kind)

    def call(state, teacher_params, batch):
      result = step(state, teacher_params, batch)
      seen.append(jax.tree.map(np.array, parallel.unreplicate(teacher_params)))
      return result

    return call

  monkeypatch.setattr(loop.parallel, "parallelize", spied)
  return seen


def test_a_run_killed_and_resumed_equals_an_uninterrupted_one_to_the_bit(
  tmp_path, folder, dense_weights, monkeypatch, teachers
):
  augmentation = {
    "data.rand_augment": 9.0,
    "data.repeats": 3,
    "mix.mixup": 0.8,
    "mix.cutmix": 1.0,
    "mix.erasing": 0.5,
  }
  config = pruned_config(folder, dense_weights, **augmentation)
  loop.train(config, tmp_path / "whole")
  interrupted = tmp_path / "interrupted"
  train_batches = loop.loader.train_batches

  def killed_after_five(*args, **kwargs):
    for i, batch in enumerate(train_batches(*args, **kwargs)):
      if i == 5:
        while not (interrupted / "checkpoints" / "4").exists():  # saving is asynchronous
          time.sleep(0.01)
        raise Killed
      yield batch

  with monkeypatch.context() as patched, pytest.raises(Killed):
    patched.setattr(loop.loader, "train_batches", killed_after_five)
    loop.train(config, interrupted)
  assert [line["step"] for line in lines(interrupted)] == [
    1,
    2,
    3,
    3,
    3,
    4,
    5,
  ]  # 3: evaluations too
  loop.train(config, interrupted)

  assert_identical(saved(config, interrupted), saved(config, tmp_path / "whole"))
  assert lines(interrupted) == lines(tmp_path / "whole")
  assert [line["step"] for line in lines(interrupted)] == [1, 2, 3, 3, 3, 4, 5, 6, 6, 6]

  # The teacher is the initial dense network throughout; a resumed student is another one.
  assert len(teachers) == 6 + 5 + 2
  for teacher in teachers:
    assert_identical(teacher, tiny.params(ARCH.dense))
  assert differs(vit.without_thresholds(saved(config, interrupted).params), teachers[0])

  # The same command on the finished run: same answer, nothing written.
  def files():
    return {
      path: path.read_bytes()
      for path in interrupted.rglob("*")
      if path.is_file() and "tensorboard" not in path.parts
    }

  before = files()
  result = loop.train(config, interrupted)
  assert result == {"workdir": str(interrupted), **metrics.read(interrupted, "eval")[-1]}
  assert files() == before


def test_four_devices_equal_one(tmp_path, folder, dense_weights):
  changes = {"eval.batch_size": 8, "total_steps": 4, "optimizer.lr": 0.0064}
  config = pruned_config(folder, dense_weights, **changes)
  one, four = tmp_path / "one", tmp_path / "four"
  script = (
    "import sys, jax, test_training; from test_training import *; assert jax.device_count() == 4\n"
    "folder, weights_file, workdir, changes = sys.argv[1:]\n"
    "vit.VARIANTS['tiny'] = tiny.TRAINED\n"
    "loop.train(pruned_config(folder, weights_file, **json.loads(changes)), workdir)"
  )
  flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
  paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
  process = subprocess.run(
    [sys.executable, "-c", script, folder, dense_weights, four, json.dumps(changes)],
    env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": paths},
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stderr
  loop.train(config, one)

  ours, theirs = lines(four), lines(one)
  assert [line["step"] for line in ours] == [1, 2, 3, 3, 3, 4, 4, 4]
  for a, b in zip(ours, theirs, strict=True):
    assert a.keys() == b.keys()
    for key in ("loss", "classification", "budget", "distillation", "gmacs"):
      if key in b:
        assert a[key] == pytest.approx(b[key], rel=1e-5, abs=1e-9), key
    for key in ("thresholds", "lr", "top1", "top5", "accuracy", "share"):
      if key in b:
        assert a[key] == pytest.approx(b[key], rel=1e-5), key
    assert str(a["kept"]) == str(b["kept"])
  # Both the weights and what is averaged; they did move.
  ours, theirs = saved(config, four), saved(config, one)
  close = functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5)
  for a, b in ((ours.params, theirs.params), (ours.ema, theirs.ema)):
    jax.tree.map(close, a, b)
  assert differs(vit.without_thresholds(theirs.params), tiny.params(ARCH.dense))


def test_a_run_and_its_exported_weights_are_the_same_start(tmp_path, folder, dense_weights):
  dense = tmp_path / "dense"
  loop.train(tiny.config(folder, init_from=str(dense_weights), total_steps=2), dense)
  _, params = checkpoint.load_run(dense)
  assert differs(params, tiny.params(ARCH.dense))
  exported = tmp_path / "exported.safetensors"
  weights.save(exported, params)
  assert_identical(checkpoint.load_weights(ARCH, dense), params)
  assert_identical(checkpoint.load_weights(ARCH, exported), params)
  runs = []
  for name, init_from in (("a", dense), ("b", exported)):
    loop.train(pruned_config(folder, init_from, total_steps=1), tmp_path / name)
    runs.append(lines(tmp_path / name))
  assert runs[0] == runs[1]


def test_calibrated_thresholds_start_at_the_budget(tmp_path, folder, dense_weights):
  # One step on all training images, as evaluation sees them.
  config = pruned_config(
    folder,
    dense_weights,
    **{"data.crop_scale": (1.0, 1.0), "data.hflip": False, "batch_size": 24, "total_steps": 1},
  )
  loop.train(config, tmp_path / "run")
  first = metrics.read(tmp_path / "run", "train")[0]
  target = 0.6 * complexity.dense_gmacs(ARCH)
  assert first["gmacs"] == pytest.approx(target, rel=3e-3)
  assert first["budget"] == pytest.approx(abs(first["gmacs"] - target), abs=1e-9)


def batch(count=8):
  rng = np.random.default_rng(2)
  return {
    "image": rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8),
    "label": rng.integers(0, 3, count).astype(np.int32),
  }


def run_steps(arch, params, objective, optimizer_, steps, ema_decay=0.0, images=8):
  """Steps on one batch; the states and metrics after each."""
  graphdef, _ = vit.abstract(arch)
  teacher = (vit.abstract(arch.dense)[0], vit.without_thresholds(params))
  if not arch.prune_before:
    teacher = (None, ())
  step = parallel.parallelize(
    make_step(graphdef, teacher[0], objective, optimizer_, 0.1, ema_decay)
  )
  state = parallel.replicate(create_state(params, optimizer_, ema_decay))
  history = []
  for _ in range(steps):
    state, values = step(state, parallel.replicate(teacher[1]), parallel.shard(batch(images)))
    history.append(jax.tree.map(np.array, parallel.unreplicate((state, values))))
  return history


@pytest.mark.parametrize(("start", "aim"), [(0.9, 0.6), (0.4, 0.7)])
def test_the_budget_term_moves_gmacs_towards_its_target(start, aim):
  images = transforms.normalize(batch(48)["image"])
  shares = (0.9, 0.8, 0.7) if start > aim else (0.2, 0.15, 0.1)
  params = tiny.with_thresholds(ARCH, tiny.params(ARCH), images, shares)
  target = aim * complexity.dense_gmacs(ARCH)
  # The network is so small that an ordinary weight would leave gradients below Adam's epsilon.
  objective = Objective(classification=0.0, budget=1e8, distillation=0.0, target_gmacs=target)
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
  params = tiny.params(ARCH.dense)
  (state, values), *_ = run_steps(ARCH.dense, params, Objective(), optax.sgd(0.1), 1)
  data = batch()
  logits = np.asarray(
    tiny.run_dense(ARCH.dense, params, transforms.normalize(data["image"])).logits, np.float64
  )
  targets = np.eye(3)[data["label"]] * 0.9 + 0.1 / 3
  likelihood = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
  assert values["loss"] == pytest.approx(-(targets * likelihood).sum() / 8, rel=1e-5)
  assert values["accuracy"] == pytest.approx(100 * (logits.argmax(1) == data["label"]).mean())
  assert int(state.step) == 1
  moved = jax.tree.map(lambda a, b: (np.asarray(a) - b) / 0.1, params, state.params)
  assert values["grad_norm"] == pytest.approx(float(optax.global_norm(moved)), rel=1e-3)


def test_the_step_is_compiled_once():
  traces = []
  sgd = optax.sgd(0.1)

  def update(*arguments):
    traces.append(1)  # runs when the step is traced, not when it runs
    return sgd.update(*arguments)

  params = tiny.params(ARCH.dense)
  counted = optax.GradientTransformation(sgd.init, update)
  run_steps(ARCH.dense, params, Objective(), counted, 3, ema_decay=0.5)
  assert len(traces) == 1


def test_averaged_weights_of_two_steps_by_hand():
  params = tiny.params(ARCH.dense)
  history = run_steps(ARCH.dense, params, Objective(), optax.sgd(0.5), 2, ema_decay=0.75)
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


def test_weight_decay_shrinks_kernels_and_nothing_else():
  for arch in (ARCH, tiny.arch(stem="conv", depth=1, prune_before=())):
    params = tiny.params(arch)
    config = tiny.config("", **{"optimizer.weight_decay": 0.5})
    optimizer_, schedule = optimizer.create(config, 10)
    # Without a gradient, AdamW's update is the decay alone.
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer_.update(zeros, optimizer_.init(params), params)
    decayed = set()
    for (path, update), value in zip(
      jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(params), strict=True
    ):
      name = jax.tree_util.keystr(path, simple=True, separator=".")
      if np.abs(update).max() > 0:
        decayed.add(name)
        np.testing.assert_allclose(update, -0.5 * schedule(0) * value, rtol=1e-5)
    linear = {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}
    stem = {"proj", "conv1", "conv2"} if arch.stem == "conv" else {"proj"}
    assert decayed == (
      {f"blocks.{i}.{layer}.kernel" for i in range(arch.depth) for layer in linear}
      | {f"patch_embed.{layer}.kernel" for layer in stem}
      | {"head.kernel"}
    )


def test_the_learning_rate_is_a_cosine_between_its_end_points():
  changes = {"optimizer.lr": 8e-3, "optimizer.end_lr": 8e-4, "batch_size": 64}
  schedule = optimizer.learning_rate(tiny.config("", **changes), 100)
  peak, end = 1e-3, 1e-4  # an eighth of 512
  assert schedule(0) == pytest.approx(peak)
  assert schedule(50) == pytest.approx((peak + end) / 2)
  assert schedule(25) == pytest.approx(end + (peak - end) * (1 + np.cos(np.pi / 4)) / 2)
  assert schedule(100) == pytest.approx(end)
  assert schedule(150) == pytest.approx(end)


def test_warm_up_climbs_linearly_to_the_peak():
  changes = {"optimizer.lr": 8e-3, "optimizer.end_lr": 0.0, "batch_size": 64}
  changes["optimizer.warmup"] = 0.2
  schedule = optimizer.learning_rate(tiny.config("", **changes), 100)
  np.testing.assert_allclose([schedule(i) for i in (0, 10, 20)], [0, 5e-4, 1e-3], atol=1e-9)
  assert schedule(21) < schedule(20)
  assert schedule(100) == pytest.approx(0, abs=1e-9)


def test_a_torn_last_line_is_left_out_and_lines_after_the_step_go(tmp_path):
  run = metrics.Metrics(tmp_path, 0)
  for step in (1, 2, 3):
    run.write(step, "train", {"loss": step / 2})
  with metrics.metrics_path(tmp_path).open("a") as file:
    file.write('{"step": 4, "ki')
  assert [line["step"] for line in metrics.read(tmp_path)] == [1, 2, 3]
  metrics.Metrics(tmp_path, 2).write(3, "train", {"loss": 9.0})
  assert [line["loss"] for line in metrics.read(tmp_path, "train")] == [0.5, 1.0, 9.0]
