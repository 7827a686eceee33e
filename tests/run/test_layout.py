"""A run writes into its own workdir, or into one where nothing has the names that it writes."""

import places
import pytest
import tiny

from asvit_jax.config import identity
from asvit_jax.core.errors import InputError
from asvit_jax.run import layout

NAMES = sorted(layout._AFTER_CONFIG)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_runs_is_not_written_over(tmp_path, name):
  place = tmp_path / name
  if name in layout.FILES:
    place.write_text('{"architectures": ["mine"]}')
  else:
    place.mkdir()
    (place / "mine").write_text(places.MINE)
  before = places.snapshot(tmp_path)
  for call in (layout.check, lambda workdir: identity.save(tiny.plan_of(""), workdir)):
    with pytest.raises(InputError, match=f"{name} of something else.*another --workdir"):
      call(tmp_path)
  assert places.snapshot(tmp_path) == before


def test_a_run_that_was_killed_goes_on_whatever_it_had_written(tmp_path):
  (tmp_path / "lock").write_text("")
  (tmp_path / "lists").mkdir()
  (tmp_path / "lists" / "train").write_text("a list")
  (tmp_path / "mine.txt").write_text(places.MINE)
  layout.check(tmp_path)  # before its config
  identity.save(tiny.plan_of(""), tmp_path)
  for name in NAMES:
    layout.check(tmp_path)
    if name in layout.FILES:
      (tmp_path / name).exists() or (tmp_path / name).write_text("{}")
    else:
      (tmp_path / name).mkdir()
      (tmp_path / name / "1").mkdir()
  layout.check(tmp_path)


@pytest.mark.parametrize("kind", [k for k in places.REFUSED if "directory" not in k])
def test_what_is_in_the_way_in_a_workdir_is_to_be_moved(tmp_path, kind):
  for name in (*layout.FILES, *layout.DIRECTORIES):
    workdir = tmp_path / name
    workdir.mkdir()
    (workdir / "config.json").write_text('{"optimizer": {}}')
    (workdir / name).unlink(missing_ok=True)
    places.REFUSED[kind](workdir / name)
    with pytest.raises(InputError, match=f"{name}.*move it away") as raised:
      layout.check(workdir)
    assert "give" not in str(raised.value)


@pytest.mark.parametrize("name", ["plan.json", "network.json", "inputs.json", "checkpoints/4"])
def test_a_run_whose_config_was_lost_is_told_from_something_else(tmp_path, name):
  plan, began = tiny.plan_of(""), {"images": 24, "teacher": 0}
  identity.save_run(plan, tiny.network(tiny.TRAINED).describe(), began, tmp_path)
  (tmp_path / "checkpoints" / "4").mkdir(parents=True)
  (tmp_path / "config.json").unlink()
  for other in {"plan.json", "network.json", "inputs.json"} - {name}:
    (tmp_path / other).unlink()
  if name != "checkpoints/4":
    (tmp_path / "checkpoints" / "4").rmdir()
  for call in (layout.check, identity.load, lambda workdir: identity.save(plan, workdir)):
    with pytest.raises(InputError, match=f"has {name} of a run, but not its config.json: restore"):
      call(tmp_path)


def test_so_is_a_directory_in_the_place_of_a_file(tmp_path):
  for name in layout.FILES:
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: it is a directory: move it away"):
      layout.check(tmp_path)
    (tmp_path / name).rmdir()
