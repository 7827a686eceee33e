"""What is opened and checked before a run begins, and before it goes on."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.data.sources import listing
from asvit_jax.sparsity import complexity
from asvit_jax.training import summary
from asvit_jax.training.opening import open_run

ARCH = tiny.TRAINED
HALVES = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)

pytestmark = pytest.mark.usefixtures("tiny_variant")


def test_images_are_decoded_before_a_run_begins_and_not_where_it_goes_on(tmp_path, folder):
  config = tiny.config(folder)
  (folder / "train" / "bee" / "1.jpg").write_bytes(b"not an image")
  checkpoints = tmp_path / "run" / "checkpoints"
  for begun in (None, "5.orbax-checkpoint-tmp"):  # a save that was cut short is no step
    if begun:
      (checkpoints / begun).mkdir(parents=True)
    with pytest.raises(InputError, match=r"bee/1\.jpg is not a readable image"):
      open_run(tiny.plan(config), tmp_path / "run")
  (checkpoints / "5").mkdir()
  assert len(open_run(tiny.plan(config), tmp_path / "run").source) == 24
  with pytest.raises(InputError, match=r"bee/1\.jpg is not a readable image"):
    open_run(tiny.plan(config))  # a dry run checks everything


def test_weights_whose_classes_have_another_order_teach_nothing_here(tmp_path, folder):
  weights = tmp_path / "w.safetensors"
  network = tiny.network(tiny.TRAINED.dense, variant="tiny", classes=("ant", "cat", "bee"))
  network.save(weights)
  with pytest.raises(InputError, match=r"label 1 is 'bee' in the data and 'cat' in the network"):
    open_run(tiny.plan(tiny.config(folder, init_from=str(weights))))


def test_lists_of_files_are_kept_in_the_workdir_or_where_the_config_says(
  tmp_path, folder, monkeypatch
):
  monkeypatch.setattr(listing, "_LEAST", 1)
  config = tiny.config(folder)
  open_run(tiny.plan(config))
  assert not list(tmp_path.rglob("*.list"))
  open_run(tiny.plan(config), tmp_path / "run")
  assert len(list((tmp_path / "run" / "lists").glob("*.list"))) == 2  # of both splits
  config.data.cache = str(tmp_path / "cache")
  open_run(tiny.plan(config), tmp_path / "other")
  assert len(list((tmp_path / "cache").glob("*.list"))) == 2
  assert not (tmp_path / "other").exists()


def test_the_teacher_of_a_pruned_network_is_given_or_its_lack_is_said(tmp_path, folder, capsys):
  dense, pruned = tiny.network(ARCH).dense, tiny.network(ARCH, seed=1)
  files = {name: str(tmp_path / f"{name}.safetensors") for name in ("dense", "pruned", "other")}
  dense.save(files["dense"])
  pruned.save(files["pruned"])
  asked = {"budget": 0.7, "init_from": files["pruned"]}
  opened = open_run(tiny.plan(tiny.config(folder, **asked)))
  assert_same(opened.teacher_params, vit.without_thresholds(pruned.params))
  assert "come from a pruned network, so the teacher does, too" in capsys.readouterr().err
  assert_same(opened.network.params, pruned.params)

  opened = open_run(tiny.plan(tiny.config(folder, **asked, teacher_from=files["dense"])))
  assert_same(opened.teacher_params, dense.params)
  assert_same(opened.network.params, pruned.params)
  assert "pruned network" not in capsys.readouterr().err
  taught = {"budget": 0.7, "init_from": files["dense"], "teacher_from": files["pruned"]}
  open_run(tiny.plan(tiny.config(folder, **taught)))
  assert "WARNING: teacher_from" in capsys.readouterr().err

  tiny.network(dataclasses.replace(ARCH, norm_epsilon=1e-5)).dense.save(files["other"])
  with pytest.raises(InputError, match=r"teacher_from .*another network \(norm_epsilon 1e-05, not"):
    open_run(tiny.plan(tiny.config(folder, **asked, teacher_from=files["other"])))
  dataclasses.replace(dense, preprocessing=HALVES).save(files["other"])
  with pytest.raises(InputError, match=r"teacher_from .* pixels of mean \(0\.5, 0\.5, 0\.5\)"):
    open_run(tiny.plan(tiny.config(folder, **asked, teacher_from=files["other"])))


def assert_same(ours, theirs):
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_budget_too_light_to_be_felt_is_said_before_it_is_missed(folder):
  def said(**changes):
    config = tiny.config(folder, budget=0.6, **changes)
    opened = open_run(tiny.plan(config))
    found = summary.summarize(opened.plan, opened.network, opened.source, opened.eval_source)
    return found["budget_loss_unpruned"], "budget: WARNING" in summary.describe(found), found

  saved = 0.4 * complexity.dense_gmacs(tiny.TRAINED)
  loss, warned, found = said()
  assert loss == pytest.approx(2 * saved)
  assert warned
  assert f"{1 / saved:.2g} would make it 1" in summary.describe(found)
  assert said(**{"loss.budget": 1 / saved})[:2] == (pytest.approx(1), False)
  for held in ({"optimizer.freeze": "thresholds"}, {"optimizer.thresholds_lr": 0.0}):
    assert said(**held)[:2] == (None, False)
