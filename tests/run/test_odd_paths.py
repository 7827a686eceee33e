"""Workdirs whose paths hold what patterns are made of, or anything else."""

import os
import shutil

import jax
import numpy as np
import pytest
import test_checkpoints as made
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.run import checkpoints as checkpoints_module
from asvit_jax.run.checkpoints import Checkpoints

NAMES = ("run[1]", "a\\b", "[!x]*?", "a\nb", "50% #2 ü", os.fsdecode(b"\xff\xfe"))


@pytest.mark.parametrize("name", tiny.few(NAMES, "[!x]*?", "a\nb"), ids=ascii)
def test_what_is_saved_in_any_directory_is_restored_there_and_elsewhere(tmp_path, name):
  made.save(tmp_path / name, 1, 2)
  for workdir in (tmp_path / name, tmp_path / "moved", tmp_path / name):
    if not workdir.exists():
      (tmp_path / "moved" if workdir.name == name else tmp_path / name).rename(workdir)
    restored = Checkpoints(workdir).restore(made.target())
    jax.tree.map(np.testing.assert_array_equal, restored, made.state(2))
  assert [p.name for p in (tmp_path / name).iterdir()] == ["checkpoints"]


def test_a_relative_path_with_a_slash_at_its_end(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  made.save("runs/a[0]/", 1)
  assert Checkpoints("runs/../runs/a[0]").steps == [1]


def test_the_link_is_made_again_where_something_cleared_temporary_files(tmp_path):
  checkpoints = made.save(tmp_path / "run[1]", 1)
  shutil.rmtree(checkpoints._plain.path.parent)
  checkpoints.save(made.state(2))
  checkpoints.wait()
  assert Checkpoints(tmp_path / "run[1]").steps == [1, 2]


def test_where_no_link_can_be_made_it_says_so_before_anything_is_saved(tmp_path, monkeypatch):
  def refuse(*_):
    raise PermissionError(1, "Operation not permitted")

  monkeypatch.setattr(os, "symlink", refuse)
  with pytest.raises(
    InputError, match=r"run\[1\]/checkpoints: .* needs a link .*another --workdir"
  ):
    Checkpoints(tmp_path / "run[1]")


def test_what_cannot_be_read_back_is_known_at_the_first_save(tmp_path, monkeypatch):
  checkpoints = made.save(tmp_path / "good", 1)
  checkpoints.prove(made.state(1))

  class Unprotected:  # as a path was given to Orbax before
    def __init__(self, path):
      self.path = path

    def mend(self):
      pass

    def named(self, text):
      return text

  monkeypatch.setattr(checkpoints_module, "PlainPath", Unprotected)
  checkpoints = made.save(tmp_path / "run[1]", 1)
  with pytest.raises(InputError, match=r"first checkpoint of the run, .*1, was written but cannot"):
    checkpoints.prove(made.state(1))
