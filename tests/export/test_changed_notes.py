"""What a note says of the network and its images is what it said when it was written."""

import json

import pytest
import test_belonging
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.export import notes
from asvit_jax.export.artifacts import load_artifact

copied, written = test_belonging.copied, test_belonging.written
CHANGES = {
  "preprocessing": [
    {"crop_ratio": 0.5},
    {"interpolation": "nearest"},
    {"crop_mode": "squash"},
    {"crop_ratio": 1},
  ],
  "architecture": [
    {"heads": 4},
    {"heads": 2},
    {"patch_size": 8},
    {"depth": 5},
    {"width": 24},
    {"mlp_ratio": 4.0},
    {"norm_epsilon": 1e-5},
  ],
}


@pytest.mark.parametrize(
  "part, change", [(part, c) for part in CHANGES for c in CHANGES[part]], ids=lambda v: f"{v}"
)
def test_a_note_that_somebody_changed_is_refused(written, tmp_path, part, change):
  path = copied(written, tmp_path, lambda note: note | {part: note[part] | change})
  with pytest.raises(
    InputError, match=r"the network or the preprocessing in net\.zip\.json is not"
  ):
    load_artifact(path)


@pytest.mark.parametrize("key, value", [("variant", "deit_t"), ("patch_size", 8), ("budget", 0.5)])
def test_so_is_what_it_says_of_itself_elsewhere(written, tmp_path, key, value):
  path = copied(written, tmp_path, lambda note: note | {key: value})
  with pytest.raises(InputError, match="is not that with which it was exported"):
    load_artifact(path)


def test_a_note_that_was_only_formatted_anew_is_taken_without_a_word(written, tmp_path, capfd):
  path = copied(written, tmp_path, lambda note: dict(sorted(note.items(), reverse=True)))
  note = json.loads(notes.note_path(path).read_text())
  notes.note_path(path).write_text(json.dumps(note, separators=(",", ":")))
  assert load_artifact(path).classes == ("ant", "bee", "cat")
  assert "WARNING" not in capfd.readouterr().err


def test_a_note_of_an_earlier_version_is_held_to_what_it_has(written, tmp_path, capfd):
  def before(note):
    return {key: value for key, value in note.items() if key != "description_sha256"}

  assert load_artifact(copied(written, tmp_path, before)).arch.heads == tiny.TRAINED.heads
  assert "net.zip.json was written by an earlier version" in capfd.readouterr().err
  with pytest.raises(InputError, match="the classes, mean or std in"):
    load_artifact(copied(written, tmp_path, lambda note: before(note) | {"classes": None}))
