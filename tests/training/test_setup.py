"""What is opened and checked before a run begins, and before it goes on."""

import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.data.sources import listing
from asvit_jax.training.setup import set_up

pytestmark = pytest.mark.usefixtures("tiny_variant")


def test_images_are_decoded_before_a_run_begins_and_not_where_it_goes_on(tmp_path, folder):
  config = tiny.config(folder)
  (folder / "train" / "bee" / "1.jpg").write_bytes(b"not an image")
  checkpoints = tmp_path / "run" / "checkpoints"
  for begun in (None, "5.orbax-checkpoint-tmp"):  # a save that was cut short is no step
    if begun:
      (checkpoints / begun).mkdir(parents=True)
    with pytest.raises(InputError, match=r"bee/1\.jpg is not a readable image"):
      set_up(config, tmp_path / "run")
  (checkpoints / "5").mkdir()
  assert len(set_up(config, tmp_path / "run").source) == 24
  with pytest.raises(InputError, match=r"bee/1\.jpg is not a readable image"):
    set_up(config)  # a dry run checks everything


def test_weights_whose_classes_have_another_order_teach_nothing_here(tmp_path, folder):
  weights = tmp_path / "w.safetensors"
  network = tiny.network(tiny.TRAINED.dense, variant="tiny", classes=("ant", "cat", "bee"))
  network.save(weights)
  with pytest.raises(InputError, match=r"label 1 is 'bee', and was 'cat' to the network"):
    set_up(tiny.config(folder, init_from=str(weights)))


def test_lists_of_files_are_kept_in_the_workdir_or_where_the_config_says(
  tmp_path, folder, monkeypatch
):
  monkeypatch.setattr(listing, "_LEAST", 1)
  config = tiny.config(folder)
  set_up(config)
  assert not list(tmp_path.rglob("*.list"))
  set_up(config, tmp_path / "run")
  assert len(list((tmp_path / "run" / "lists").glob("*.list"))) == 2  # of both splits
  config.data.cache = str(tmp_path / "cache")
  set_up(config, tmp_path / "other")
  assert len(list((tmp_path / "cache").glob("*.list"))) == 2
  assert not (tmp_path / "other").exists()
