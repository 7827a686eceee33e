"""Steps that compute otherwise do the same: in bfloat16, blocks computed again, by shard_map."""

import functools
import pickle

import jax
import numpy as np
import optax
import processes
import pytest
import tiny

from asvit_jax.core import leaves, recipes
from asvit_jax.network import Network
from asvit_jax.training import parallel
from asvit_jax.training.step import create_state, make_program

SMALL = dict(depth=3, prune_before=(1, 2))
ARCHS = {
  "deit": tiny.arch(**SMALL),
  "lvvit": tiny.arch(**SMALL, **tiny.LV),
  "wide": tiny.arch(**SMALL, width=192),
  "merging": tiny.arch(**SMALL, width=192, reduction="merge"),
}
BATCH = 4  # so few that there are gaps between scores, in which thresholds tell all kinds the same
EXACT = {"model.dtype": "float32"}
KINDS = {  # what is changed of a recipe, and how far the gradient may be, as a share of its norm
  "bfloat16": ({}, 0.12),
  "remat": (EXACT | {"model.remat": True}, 1e-5),
  "shard_map": (EXACT | {"parallel": "shard_map"}, 1e-5),
}


def batch(arch):
  rng = np.random.default_rng(2)
  return {
    "image": rng.integers(0, 256, (BATCH, *arch.image_shape), dtype=np.uint8),
    "label": rng.integers(0, arch.classes, BATCH).astype(np.int32),
  }


def prepared(kind, **changes):
  """The program of a recipe for ImageNet on a small network, what it is run on, and the config.

  The optimizer subtracts gradients as they are. Images are not mixed, which is drawn by device, nor
  erased, and batch norms are as in evaluation: thresholds lie between the scores of these images.
  """
  arch = ARCHS[kind]
  config = recipes.load("as_lvvit_s" if kind == "lvvit" else "as_deit_s", "0.6")
  assert config.model.dtype == "bfloat16"
  same = {"mix.mixup": 0.0, "mix.cutmix": 0.0, "mix.erasing": 0.0, "temperature": 1e-2}
  same |= {"optimizer.freeze": "patch_embed"} if kind == "lvvit" else {}
  config.update_from_flattened_dict(same | changes)
  images = tiny.normalize(batch(arch)["image"])
  params = tiny.with_thresholds(arch, tiny.params(arch), images, (0.7, 0.4))
  network = Network(arch, params, dtype=config.model.dtype)
  plan = tiny.plan(config).of_network(arch, network.preprocessing)
  program, _ = make_program(plan, network, optax.sgd(1.0))
  given = create_state(params, optax.sgd(1.0), config.ema_decay), network.dense.params
  given = [parallel.replicate(tree, config.parallel) for tree in given]
  return program, (*given, parallel.shard(batch(arch), config.parallel)), params, config


@functools.cache
def step(kind, *changes):
  """({name: gradient}, metrics) of one step; `changes` are pairs of a key and its value."""
  program, given, params, config = prepared(kind, **dict(changes))
  state, metrics = parallel.unreplicate(program(*given), config.parallel)
  gradients = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), params, state.params)
  return dict(leaves.named(gradients)), jax.tree.map(np.asarray, metrics)


def distance(ours, theirs):
  """Norm of the difference of two dictionaries of gradients, as a share of that of the second."""
  ours, theirs = (np.concatenate([np.ravel(of[k]) for k in theirs]) for of in (ours, theirs))
  return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


CASES = [
  *(("deit", kind) for kind in KINDS),
  *(pytest.param("lvvit", kind, marks=pytest.mark.slow) for kind in KINDS),
]


@pytest.mark.parametrize(("arch", "kind"), CASES)
def test_it_takes_the_same_step(arch, kind):
  changes, near = KINDS[kind]
  ours, metrics = step(arch, *changes.items())
  theirs, expected = step(arch, *EXACT.items())
  assert_near(ours, metrics, theirs, expected, near)
  assert (distance(ours, theirs) > 1e-3) == (kind == "bfloat16")  # which does compute in it


def assert_near(ours, metrics, theirs, expected, near):
  """The same tokens are kept, and the gradient and the terms of the loss are near."""
  assert all(np.isfinite(leaf).all() and leaf.dtype == np.float32 for leaf in ours.values())
  assert {"classification", "distillation", "budget"} <= metrics.keys() == expected.keys()
  np.testing.assert_array_equal(metrics["kept"], expected["kept"])
  for name, value in expected.items():
    if name == "thresholds":  # after the step: in the gradient, below
      continue
    np.testing.assert_allclose(metrics[name], value, rtol=max(near, 1e-4), err_msg=name)
  assert metrics["loss"] == pytest.approx(float(expected["loss"]), rel=max(near / 20, 1e-5))
  assert 0 < metrics["kept"][1] < metrics["kept"][0] < 16
  assert distance(ours, theirs) < near


@pytest.mark.parametrize("again", [False, True])
def test_remat_is_what_computes_blocks_again(again):
  program, given, _, _ = prepared("deit", **EXACT, **{"model.remat": again})
  assert ("remat" in str(jax.make_jaxpr(program)(*given))) == again


@pytest.mark.slow
def test_shard_map_takes_the_same_step_on_four_devices(tmp_path):
  """An image on each of them, against all of them on one by `pmap`."""
  script = (
    "import sys, jax, pickle, pathlib, test_kinds_of_step as ours\n"
    "assert jax.device_count() == 4\n"
    "changes = ours.KINDS['shard_map'][0].items()\n"
    "pathlib.Path(sys.argv[1]).write_bytes(pickle.dumps(ours.step('deit', *changes)))"
  )
  processes.succeed("-c", script, tmp_path / "step", devices=4)
  four = pickle.loads((tmp_path / "step").read_bytes())
  assert_near(*four, *step("deit", *EXACT.items()), 1e-5)
