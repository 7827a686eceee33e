"""Opening a file runs none of the code that it names: any file, any field, any command."""

import dataclasses
import json
import sys
import types

import command_lines
import numpy as np
import pytest
import tiny

from asvit_jax import config as config_lib
from asvit_jax.config import identity
from asvit_jax.config.parts import TRAINING
from asvit_jax.core.errors import InputError
from asvit_jax.export.artifacts import load_artifact, note_path
from asvit_jax.export.notes import checksum_of_description
from asvit_jax.network import load, load_configured
from asvit_jax.weights import saving

ARCH = tiny.TRAINED
OF_NETWORK = ("stem", "attention", "score", "reduction")
# A module that is not imported, one that is, what ends processes, a part of ours by its place, and
# what is no name but would be run by whoever copied it into a shell.
NAMES = (
  "theirs_in_a_file:part",
  "theirs_imported:part",
  "subprocess:Popen",
  "asvit_jax.sparsity.scores:class_attention",
  "x:$(touch mark)",
)
FOREIGN = NAMES[:2]


class Watched(types.ModuleType):
  """A module that remembers that it was asked for anything."""

  def __getattr__(self, name):
    if not name.startswith("__"):
      self.__dict__.setdefault("asked", []).append(name)
    raise AttributeError(name)


@pytest.fixture
def unmarked(tmp_path, monkeypatch):
  """A directory that is the current one; fails where one of the modules ran."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / "theirs_in_a_file.py").write_text("open('mark', 'w').close()\npart = print\n")
  watched = Watched("theirs_imported")
  monkeypatch.setitem(sys.modules, "theirs_imported", watched)
  yield tmp_path
  assert not (tmp_path / "mark").exists()
  assert "theirs_in_a_file" not in sys.modules
  assert "asked" not in vars(watched)


def weights_file(path, **fields):
  """Weights that say that they are of another network than they are."""
  described = tiny.network(ARCH).describe()
  described["architecture"] |= fields
  saving.save(path, tiny.params(ARCH.dense), described)
  return path


def workdir(path, changes=None, fields=None):
  """What a run leaves, but for its checkpoints; of a config and of a network with changes."""
  path.mkdir()
  config = config_lib.base()
  config.model.update(
    {k: getattr(ARCH, k) for k in ("width", "heads", "depth", "prune_before")} | {"variant": "mine"}
  )
  config = config.to_dict()
  for key, name in (changes or {}).items():
    section, field = key.split(".")
    config[section][field] = name
  (path / "config.json").write_text(json.dumps(config))
  described = tiny.network(ARCH).describe()
  described["architecture"] |= fields or {}
  (path / "network.json").write_text(json.dumps(described))
  return path


def commands(source, flag):
  """[(command, arguments)] of all that load what a flag gives."""
  given = [f"--{flag}={source}"]
  shared = [
    ("evaluate", given),
    ("predict", [*given, "image.png"]),
    ("export", [*given, "--format=safetensors", "--out=out"]),
    ("visualize", [*given, "--out=tokens.png", "image.png"]),
    ("compare", given),
    ("benchmark", [f"--weights={source}", "--images=."]),
    ("evaluate", [*given, "--config.seed=1"]),
  ]
  trained = [
    ("train", given),
    ("train", [*given, "--config.seed=1"]),
    ("train", [*given, "--dry-run"]),
  ]
  return shared + (trained if flag == "workdir" else [])


def refused(command, arguments, *said):
  with pytest.raises(InputError) as error:
    command_lines.run(command, *arguments)
  message = str(error.value)
  assert "\n" not in message
  for text in said:
    assert text in message


@pytest.fixture
def image(unmarked):
  """`image.png` in the current directory."""
  from PIL import Image

  Image.new("RGB", (16, 16)).save(unmarked / "image.png")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", OF_NETWORK)
def test_no_field_of_weights_is_run(unmarked, image, field, name):
  path = weights_file(unmarked / "w.safetensors", **{field: name})
  # Every command for one field, and one for every field.
  for command, arguments in commands(path, "weights") if field == "score" else [("export", None)]:
    arguments = arguments or [f"--weights={path}", "--format=safetensors", "--out=out"]
    refused(command, arguments, "w.safetensors", f"model.{field}")
  for given in ({}, {"arch": ARCH}, {"parts": ["theirs:other"]}):
    with pytest.raises(InputError, match=f"w.safetensors.*model.{field}"):
      load(path, **given)
  with pytest.raises(InputError, match=f"w.safetensors.*model.{field}"):
    load_configured(path, tiny.plan(tiny.config("", **{"model.variant": "deit_t"})))


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("key", TRAINING)
def test_no_key_of_a_config_in_a_workdir_is_run(unmarked, image, key, name):
  path = workdir(unmarked / "run", {key: name})
  given = commands(path, "workdir")
  for command, arguments in given if key in ("model.stem", "optimizer.name") else given[-1:]:
    if command == "train" or key.startswith("model."):
      refused(command, arguments, "run", key)
      continue
    with pytest.raises(InputError):  # it needs none of that, and goes on until there is no data
      command_lines.run(command, *arguments)
  with pytest.raises(InputError, match=f"names {name}, code outside.*--config.{key}={name}"):
    identity.load(path)
  with pytest.raises(InputError, match=r"has no checkpoint yet|model\."):
    load(path)
  with pytest.raises(InputError, match=f"names {name}, code"):  # of a run that it would go on with
    identity.check_config(tiny.plan(config_lib.base()), path)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("field", OF_NETWORK)
def test_no_field_of_a_network_in_a_workdir_is_run(unmarked, field, name):
  path = workdir(unmarked / "run", fields={field: name})
  with pytest.raises(InputError, match=f"run names {name}, code .* as its model.{field}"):
    load(path)


@pytest.mark.parametrize("key", ["init_from", "teacher_from"])
def test_no_source_of_a_run_is_run(unmarked, key, tiny_variant, folder):
  path = weights_file(unmarked / "w.safetensors", score=FOREIGN[0])
  fine = weights_file(unmarked / "fine.safetensors")
  config = tiny.config(folder, **{"init_from": str(fine), key: str(path), "budget": 0.7})
  (unmarked / "mine.py").write_text(
    "import json, ml_collections\n"
    f"def get_config():\n  return ml_collections.ConfigDict(json.loads({config.to_json()!r}))\n"
  )
  refused("train", ["--config=mine.py", "--workdir=run"], "w.safetensors names", "score")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
  """(path, its note) of an artifact."""
  network, path = tiny.network(ARCH.dense, variant="mine"), tmp_path_factory.mktemp("a") / "net.zip"
  network.export(path, "stablehlo", (1,))
  return path, json.loads(note_path(path).read_text())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", (*OF_NETWORK, "format"))
def test_no_field_of_a_note_is_run(unmarked, image, artifact, field, name):
  path, note = artifact
  copy = unmarked / "net.zip"
  copy.write_bytes(path.read_bytes())
  changed = {"architecture": note["architecture"] | {field: name}}
  changed = {"format": name} if field == "format" else changed
  note_path(copy).write_text(json.dumps(note | changed))
  refused("predict", [f"--artifact={copy}", "image.png"], field)
  with pytest.raises(InputError, match=field):
    load_artifact(copy)


@pytest.mark.parametrize("field", ["architecture", "model_type", "hidden_act", "score"])
def test_no_field_of_a_config_of_the_hub_is_run(unmarked, field):
  (unmarked / "hub").mkdir()
  saving.save(unmarked / "hub" / "model.safetensors", tiny.params(ARCH.dense))
  config = {"architecture": "vit", "num_features": 12, "model_args": {"num_heads": 3}}
  (unmarked / "hub" / "config.json").write_text(json.dumps(config | {field: FOREIGN[0]}))
  try:
    load(unmarked / "hub")
  except InputError as error:
    assert "Traceback" not in str(error)


def mine(directory, monkeypatch):
  """A module with a score of one's own, `my_own_parts:score`."""
  monkeypatch.syspath_prepend(directory)
  (directory / "my_own_parts.py").write_text(
    "from asvit_jax.sparsity.scores import class_attention as score\n"
  )
  return "my_own_parts:score"


def test_what_the_user_types_is_run(tmp_path, monkeypatch):
  """By a flag of the config, by --parts, by a config file, and in Python."""
  name = mine(tmp_path, monkeypatch)
  path = weights_file(tmp_path / "w.safetensors", score=name)
  export = [f"--weights={path}", "--format=safetensors", f"--out={tmp_path / 'out.safetensors'}"]
  refused("export", export, f"--config.model.score={name}", f"--parts={name}", f"parts=['{name}']")
  refused("export", [*export, f"--config.model.stem={name}x"], f"names {name}")
  (tmp_path / "mine.py").write_text(
    "import json\nfrom asvit_jax.config import base\n\n\ndef get_config():\n  config = base()\n"
    f"  config.model.update(json.loads('''{json.dumps(ARCH.to_json())}'''))\n"
    f"  config.model.score = {name!r}\n  return config\n".replace("classes", "num_classes")
  )
  for typed in (f"--config.model.score={name}", f"--parts={name}", f"--config={tmp_path}/mine.py"):
    assert command_lines.run("export", *export, typed)["architecture"]["score"] == name
  assert load(path, parts=[name]).arch == dataclasses.replace(ARCH, score=name)
  assert load(path, parts=name).arch.score == name
  for wrong in ("score", [print], ["a b:c"], ["a:b.c"]):
    with pytest.raises(InputError, match=r"expected package\.module:object"):
      load(path, parts=wrong)


def test_a_run_of_ones_own_goes_on_by_what_is_typed(unmarked, image, monkeypatch):
  name = mine(unmarked, monkeypatch)
  changes = {"model.score": name, "data.name": name, "optimizer.name": name}
  run = workdir(unmarked / "run", changes)
  typed = [f"--config.{key}={name}" for key in changes]
  for command, arguments in commands(run, "workdir"):
    if command == "benchmark":
      continue
    refused(command, arguments, f"--config.model.score={name}", "--config that contains it")
    for given in (typed, [f"--parts={name}"]):  # then there is no checkpoint, or it is no optimizer
      with pytest.raises(InputError) as error:
        command_lines.run(command, *arguments, *given)
      assert "code outside" not in str(error.value)
  monkeypatch.delitem(sys.modules, "my_own_parts")


def test_an_artifact_of_ones_own_is_run_by_what_is_typed(tmp_path, monkeypatch, artifact):
  name = mine(tmp_path, monkeypatch)
  path, note = artifact
  copy = tmp_path / "net.zip"
  copy.write_bytes(path.read_bytes())
  note = note | {"architecture": note["architecture"] | {"score": name}}
  note["description_sha256"] = checksum_of_description(note)
  note_path(copy).write_text(json.dumps(note))
  found = load_artifact(copy, parts=[name])
  assert found.arch.score == name
  assert found(np.zeros((1, 16, 16, 3), np.uint8))[0].shape == (1, 3)
