"""Layer-wise decay, stochastic depth, early stopping, and metrics for others."""

import dataclasses
import importlib.util
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from asvit_jax.config import rules
from asvit_jax.core import leaves
from asvit_jax.core.errors import InputError
from asvit_jax.losses.objective import Objective
from asvit_jax.network import Network
from asvit_jax.optimizers import building, groups
from asvit_jax.run import metrics
from asvit_jax.sparsity.complexity import dense_gmacs
from asvit_jax.training import parallel
from asvit_jax.training.step import Options, create_state, make_step
from asvit_jax.training.train import train
from asvit_jax.vit import drop_path

ARCH = tiny.TRAINED


def test_layers_further_from_the_head_learn_more_slowly():
  params = tiny.params(ARCH)
  grads = jax.tree.map(jnp.ones_like, params)
  updates = []
  for decay in (1.0, 0.5):
    changes = {"optimizer.name": "sgd", "optimizer.layer_decay": decay}
    changes |= {"optimizer.weight_decay": 0.0, "optimizer.thresholds_lr": 3.0}
    plan = tiny.plan(tiny.config("", **changes, total_steps=10))
    optimizer = building.create(plan.optimizer, plan.schedule)
    found, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
    updates.append(dict(leaves.named(found)))
  plain, decayed = updates
  expected = {"head": 1, "norm": 0.5, "blocks.3": 0.5, "blocks.2": 0.25, "blocks.0": 1 / 16}
  expected |= {"patch_embed": 1 / 32, "cls_token": 1 / 32, "pos_embed": 1 / 32, "thresholds": 1}
  for prefix, factor in expected.items():
    names = [n for n in plain if n == prefix or n.startswith(f"{prefix}.")]
    assert names
    for name in names:
      np.testing.assert_allclose(decayed[name], factor * plain[name], rtol=1e-6)


def test_a_branch_is_passed_by_for_some_images_and_scaled_up_for_the_others():
  model = Network(ARCH, tiny.params(ARCH)).model
  places = np.arange(4000)
  drop_path.train_mode(model, 0.6, jax.random.key(1), places)
  y = np.ones((4000, 2, 1), np.float32)
  assert model.blocks[0].drop_path is None
  kept = []
  for block, rate in ((1, 0.2), (3, 0.6)):
    for branch in (0, 1):
      found = np.asarray(model.blocks[block].drop_path(y, branch))
      stays = found[:, 0, 0] > 0
      np.testing.assert_allclose(found, np.where(stays, 1 / (1 - rate), 0)[:, None, None] * y)
      assert stays.mean() == pytest.approx(1 - rate, abs=0.03)
      kept.append(stays)
  assert np.corrcoef(kept)[np.triu_indices(4, 1)] == pytest.approx(np.zeros(6), abs=0.06)
  drop_path.train_mode(model, 0.6, jax.random.key(1), places[::-1])  # places decide, not the order
  again = np.asarray(model.blocks[3].drop_path(y, 1))[:, 0, 0] > 0
  np.testing.assert_array_equal(again, kept[-1][::-1])


@pytest.mark.slow
def test_a_step_drops_the_same_paths_in_parts_of_its_batch_and_others_in_the_next():
  arch = dataclasses.replace(ARCH, depth=2, prune_before=(1,))
  images = np.random.default_rng(2).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
  batch = {"image": images, "label": np.arange(8, dtype=np.int32) % 3}
  params = tiny.with_thresholds(arch, tiny.params(arch), tiny.normalize(images), (0.6,))
  network, still = Network(arch, params), optax.sgd(0.0)
  objective = Objective(target_gmacs=0.6 * dense_gmacs(arch))
  found = []
  for accumulate in (1, 2):
    options = Options(drop_path=0.5, accumulate=accumulate)
    step = parallel.parallelize(make_step(network, network.dense, objective, still, options))
    state = parallel.replicate(create_state(params, still, 0.0))
    teacher = parallel.replicate(network.dense.params)
    for _ in range(2):
      state, values = step(state, teacher, parallel.shard(batch))
      found.append({k: float(parallel.unreplicate(values[k])) for k in ("loss", "grad_norm")})
  first, second, *in_parts = found
  assert in_parts == [pytest.approx(first, rel=1e-4), pytest.approx(second, rel=1e-4)]
  assert abs(first["loss"] - second["loss"]) > 1e-3  # nothing else than the paths differs


@pytest.mark.slow
def test_a_run_that_gets_no_better_ends_early_and_stays_there(tmp_path, folder, tiny_variant):
  changes = {"eval.pictures": 0, "eval.every": 1, "optimizer.lr": 1e-12, "total_steps": 5}
  changes |= {"checkpoint_every": 100, "optimizer.end_lr": 0.0, "criterion.name": "bce"}
  changes |= {"criterion.class_weights": "balanced", "optimizer.layer_decay": 0.9}
  config = tiny.config(folder, **changes | {"eval.patience": 2, "model.drop_path": 0.1})
  result = train(config, tmp_path)
  assert (result["step"], result["stopped_early"]) == (3, True)
  assert train(config, tmp_path) == result
  assert [line["step"] for line in metrics.read(tmp_path, "train")] == [1, 2, 3]
  config.eval.patience = 0
  result = train(config, tmp_path)
  assert (result["step"], "stopped_early" in result) == (5, False)
  config.criterion.class_weights = "1,1,2"
  with pytest.raises(InputError, match="class_weights was 'balanced', is '1,1,2'"):
    train(config, tmp_path)


class Wandb(types.ModuleType):
  """What the client does, as far as it is used."""

  def __init__(self):
    super().__init__("wandb")
    self.calls = []

  def init(self, **options):
    self.calls.append(("init", options))
    return self

  def log(self, scalars, step):
    self.calls.append(("log", step, scalars))

  def finish(self):
    self.calls.append(("finish",))


def test_metrics_also_go_to_wandb_and_a_run_goes_on_there(tmp_path, monkeypatch):
  client = Wandb()
  monkeypatch.setitem(sys.modules, "wandb", client)
  config = tiny.config("", wandb="pruning")
  plan = tiny.plan(config)
  for step in (0, 1):
    written = metrics.Metrics(tmp_path / "run", step, plan)
    written.write(step + 1, "train", {"loss": 0.5, "kept": [3.0, 2.0]})
    written.close()
  (name, options), logged, finished, again, *_ = client.calls
  assert (name, options["project"], options["name"]) == ("init", "pruning", "run")
  assert options["config"] == config.to_dict() and options["resume"] == "allow"
  scalars = {"train/loss": 0.5, "train/kept/0": 3.0, "train/kept/1": 2.0}
  assert (logged, finished) == (("log", 1, scalars), ("finish",))
  assert again == ("init", options)  # the id, too
  monkeypatch.setattr(client, "init", lambda **_: 1 / 0)
  with pytest.raises(InputError, match=r"'pruning' cannot start .*WANDB_MODE=offline"):
    metrics.Metrics(tmp_path / "run", 1, plan)


def test_wandb_is_asked_for_only_where_it_is_installed(folder, tiny_variant, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(InputError, match="wandb 'p' needs the wandb library: pip install wandb"):
    rules.check(tiny.config(folder, wandb="p"))


@pytest.mark.external
def test_layers_decay_as_in_timm():
  timm = pytest.importorskip("timm.optim") and pytest.importorskip("timm")
  sizes = dict(img_size=16, patch_size=4, embed_dim=12, depth=4, num_heads=3, num_classes=3)
  model = timm.models.vision_transformer.VisionTransformer(**sizes, drop_path_rate=0.6)
  names = {id(parameter): name for name, parameter in model.named_parameters()}
  for group in timm.optim.param_groups_layer_decay(model, layer_decay=0.5):
    for parameter in group["params"]:
      layers = groups.layers_below_head(names[id(parameter)], 4)
      assert group["lr_scale"] == pytest.approx(0.5**layers), names[id(parameter)]
  ours = Network(ARCH, tiny.params(ARCH)).model
  drop_path.train_mode(ours, 0.6, jax.random.key(0), np.arange(2))
  for block, theirs in zip(ours.blocks[1:], model.blocks[1:], strict=True):
    assert block.drop_path._rate == pytest.approx(theirs.drop_path1.drop_prob)
