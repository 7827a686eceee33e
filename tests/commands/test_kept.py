"""No output takes the place of what the config, a run or an artifact leads to."""

import json

import places
import pytest
import tiny
from command_lines import run

from asvit_jax.config import identity
from asvit_jax.core import outputs
from asvit_jax.core.errors import InputError
from asvit_jax.run import layout

pytestmark = pytest.mark.usefixtures("tiny_variant")


@pytest.fixture
def data(tmp_path, monkeypatch):
  """A directory with images, lists, weights and a run."""
  monkeypatch.chdir(tmp_path)
  for name in ("data/val/c0/0.png", "labels.csv", "more.csv", "names.txt", "w.npz", "t.npz"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(places.MINE)
  (tmp_path / "mine.py").write_text("from asvit_jax.config import base as get_config\n")
  keys = {"data.dir": "data", "data.eval_labels": "labels.csv", "data.classes": "names.txt"}
  identity.save(tiny.plan_of("", budget=0.6, **keys), "run")
  for name in layout.FILES:
    if name != "config.json":
      (tmp_path / "run" / name).write_text("{}")
  for name in layout.DIRECTORIES:
    (tmp_path / "run" / name / "1").mkdir(parents=True)
  return tmp_path


CONFIG = (
  "--config=mine.py",
  "--config.data.dir=data",
  "--config.data.eval_labels=labels.csv",
  "--config.data.train_labels=more.csv",
  "--config.data.classes=names.txt",
  "--config.init_from=w.npz",
  "--config.teacher_from=t.npz",
  "--weights=none",
)
READ = (
  *("labels.csv", "more.csv", "names.txt", "w.npz", "t.npz", "mine.py", "data/val/c0/0.png"),
  *("./data/../labels.csv", "link/0.png"),
)


@pytest.mark.parametrize("flag", ["per-image", "per-class"])
def test_what_a_config_leads_to_is_kept(data, flag):
  (data / "link").symlink_to(data / "data" / "val" / "c0")
  before = places.snapshot(data)
  for name in READ:
    with pytest.raises(InputError, match=r"would overwrite .*: give another name"):
      run("evaluate", *CONFIG, f"--{flag}", name)
  assert places.snapshot(data) == before


@pytest.mark.parametrize("flag", ["workdir", "weights"])
def test_so_is_what_the_config_of_a_run_leads_to(data, flag):
  for name in ("labels.csv", "names.txt", "data/val/c0/0.png"):
    with pytest.raises(InputError, match=r"would overwrite .*config\.data\."):
      run("evaluate", f"--{flag}", "run", "--per-image", name)


@pytest.mark.parametrize("name", [*layout.FILES, *(f"{d}/1/new" for d in layout.DIRECTORIES)])
def test_so_is_what_a_run_wrote(data, name):
  for command, *given in (
    ("evaluate", "--workdir", "run", "--per-image"),
    ("evaluate", "--weights", "run", "--per-class"),
    ("evaluate", "--config=mine.py", "--config.init_from=run", "--weights=x", "--per-class"),
    ("export", "--workdir", "run", "--format=stablehlo", "--out"),
    ("visualize", "--workdir", "run", "--curves", "--out"),
    ("benchmark", "--weights", "run", "--plot"),
  ):
    said = f"would overwrite {name.split('/')[0]} of the run"
    with pytest.raises(InputError, match=said):
      run(command, *given, f"run/{name}")


def test_so_are_an_artifact_with_its_note_and_images_to_time_on(data):
  (data / "a").mkdir()
  for name in ("a/saved_model.pb", "a.json"):
    (data / name).write_text("{}")
    with pytest.raises(InputError, match=r"overwrite .*--artifact"):
      run("predict", "--artifact=a/", "--features", name, "b.png")
  with pytest.raises(InputError, match="overwrite what is in --images"):
    run("benchmark", "--images=data/val/c0", "--plot=data/val/c0/0.png")


def test_new_files_and_those_that_nobody_reads_are_written(data, monkeypatch):
  from asvit_jax.commands import evaluate

  asked = []
  monkeypatch.setattr(evaluate, "main", lambda _: asked.append(outputs.named()))
  (data / "data" / "rows.jsonl").write_text("{}")
  (data / "run" / "rows.jsonl").write_text("{}")
  names = ("data/rows.jsonl", "data/val/c0/new.png", "run/rows.jsonl", "data/new/rows.jsonl")
  for name in names:
    run("evaluate", *CONFIG, "--config.init_from=run", "--per-image", name)
  (data / "w.safetensors").write_text("")
  weights = ("--weights=w.safetensors", "--config.init_from=w.safetensors")
  run("evaluate", "--config=mine.py", *weights, "--save-weights=w.safetensors")
  assert len(asked) == len(names) + 1
  assert json.loads((data / "run" / "network.json").read_text()) == {}


def test_what_a_run_names_that_is_not_known_here_is_in_nobodys_way(data, monkeypatch):
  from asvit_jax.commands import arguments, evaluate

  keys = {"init_from": "gs://nowhere/w", "teacher_from": "~nobody/w", "data.dir": "x://y"}
  identity.save(tiny.plan_of("", budget=0.6, **keys), "other")
  monkeypatch.setattr(evaluate, "main", lambda _: {"found": arguments.config().init_from})
  found = run("evaluate", "--workdir", "other", "--per-image", "rows.jsonl")
  assert found == {"found": "gs://nowhere/w"}
