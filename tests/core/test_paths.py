"""What is no path is said to be none, wherever a path is expected."""

import pathlib

import pytest
import tiny

from asvit_jax import load
from asvit_jax.config import identity
from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.export.artifacts import load_artifact
from asvit_jax.run import layout

NETWORK = tiny.network(tiny.TRAINED).dense
TAKES_A_PATH = {
  "path": storage.path,
  "in_bucket": storage.in_bucket,
  "read": storage.read,
  "write": lambda path: storage.write(path, "", "it"),
  "append": lambda path: storage.append(path, ""),
  "remove": storage.remove,
  "check_file": lambda path: storage.check_file(path, "it"),
  "check_writable": lambda path: storage.check_writable(path, "it"),
  "save": NETWORK.save,
  "export": lambda path: NETWORK.export(path, "safetensors"),
  "export of a directory": lambda path: NETWORK.export(path, "savedmodel"),
  "load": load,
  "load_artifact": load_artifact,
  "a workdir": layout.check,
  "a run": identity.load,
}


@pytest.mark.parametrize("name", TAKES_A_PATH)
@pytest.mark.parametrize("value", [5, None, 1.5, NETWORK, ["a"]], ids=lambda v: type(v).__name__)
def test_what_is_no_path_gets_a_line(name, value):
  with pytest.raises(InputError, match=f"^expected a path, got {type(value).__name__}$"):
    TAKES_A_PATH[name](value)


@pytest.mark.parametrize("name", ["write", "check_file", "save", "export", "export of a directory"])
def test_an_empty_path_is_said_to_be_empty(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match=r"cannot write .*: the path is empty: give a name"):
    TAKES_A_PATH[name]("")
  assert storage.path("") == pathlib.Path()


@pytest.mark.parametrize("value", ["", ".", "/", "..", "a/.."])
def test_a_path_without_a_name_is_no_artifact(value):
  with pytest.raises(InputError) as raised:
    load_artifact(value)
  assert "\n" not in str(raised.value)
