"""What is damage to a checkpoint, whose step before is then used, and what is none."""

import errno
import shutil

import hanging
import pytest
import test_checkpoints as made

from asvit_jax.core.errors import InputError
from asvit_jax.run import checkpoints as checkpoints_module
from asvit_jax.run import damage
from asvit_jax.run.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("saved")
  made.save(workdir, 1, 2)
  return workdir


def remove(path):
  shutil.rmtree(path) if path.is_dir() else path.unlink()


def flip_the_first_byte(path):
  content = bytearray(path.read_bytes())
  content[0] ^= 0x10
  path.write_bytes(content)


def halve(path):
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])


def write_garbage(path):
  path.write_bytes(b"\xff\x00garbage")


def write_empty_json(path):
  path.write_bytes(b"{}")


FILES = (remove, flip_the_first_byte, halve, write_garbage, write_empty_json)


def largest(directory):
  """The file with the arrays: its name is of the moment."""
  return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


PLACES = {
  "arrays": lambda step: largest(step / "ema" / "ocdbt.process_0"),
  "metadata": lambda step: step / "params" / "_METADATA",
  "checksums": lambda step: step / "checksums" / "metadata",
  "manifest": lambda step: step / "optimizer" / "manifest.ocdbt",
  "folder of arrays": lambda step: step / "ema" / "ocdbt.process_0",
  "item": lambda step: step / "optimizer",
}
CASES = [
  ("arrays", remove),
  ("arrays", flip_the_first_byte),
  ("metadata", write_garbage),
  ("metadata", write_empty_json),
  ("checksums", write_garbage),
  ("folder of arrays", remove),
  ("item", remove),
]


@pytest.mark.parametrize(("place", "change"), CASES)
def test_a_damaged_file_sets_the_step_aside_at_once(tmp_path, saved, place, change, capfd):
  workdir = shutil.copytree(saved, tmp_path / "run")
  change(PLACES[place](workdir / "checkpoints" / "2"))
  with hanging.never():
    assert int(Checkpoints(workdir).restore(made.target()).step) == 1
  assert [path.name.split("_")[0] for path in (workdir / "damaged").iterdir()] == ["2"]
  said = capfd.readouterr().err
  assert "2 is damaged (step 2: " in said
  assert "Traceback" not in said


@pytest.mark.slow
def test_every_file_and_directory_of_a_step(tmp_path, saved):
  """What Orbax does not read may change nothing; what it reads is damage, and never an error."""
  step = saved / "checkpoints" / "2"
  for path in sorted(step.rglob("*")):
    for change in (remove,) if path.is_dir() else FILES:
      workdir = shutil.copytree(saved, tmp_path / "run")
      change(workdir / "checkpoints" / "2" / path.relative_to(step))
      restored = Checkpoints(workdir).restore(made.target())
      assert int(restored.step) == (1 if (workdir / "damaged").exists() else 2)
      shutil.rmtree(workdir)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT])
def test_damage_on_a_disk_that_cannot_be_read_moves_nothing(tmp_path, saved, monkeypatch, number):
  workdir = shutil.copytree(saved, tmp_path / "run")
  remove(PLACES["arrays"](workdir / "checkpoints" / "2"))

  def failing(directory):
    raise OSError(number, "the disk fails", str(directory))

  monkeypatch.setattr(damage, "_read_all", failing)
  monkeypatch.setattr(checkpoints_module, "WAITS", (0.0, 0.0, 0.0))
  with pytest.raises(InputError, match=r"the disk fails.*nothing was changed"):
    Checkpoints(workdir).restore(made.target())
  assert Checkpoints(workdir).steps == [1, 2]
  assert not (workdir / "damaged").exists()


def test_arrays_of_other_shapes_are_those_of_another_network(saved):
  import dataclasses

  wider = dataclasses.replace(made.ARCH, width=24)
  with pytest.raises(InputError, match="it is of another network, or the storage fails"):
    Checkpoints(saved, read_only=True).restore_weights(wider, "params")


def test_what_the_system_says_of_a_write_is_not_cut_off():
  """TensorStore's text of it is thousands of characters long, and this is at its end."""
  error = ValueError(
    "RESOURCE_EXHAUSTED: Error opening " + 400 * "x" + ": Too many open files [os_error_code='24']"
  )
  assert damage.of_system(error) == "Too many open files"
