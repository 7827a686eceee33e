"""Every flag that names what is written is looked at before any work begins."""

import contextlib
import importlib
import os
import re
import sys

import places
import pytest
import tiny
from absl import flags
from command_lines import assert_one_error, call, run

from asvit_jax import commands
from asvit_jax.core import command, outputs
from asvit_jax.core.errors import InputError

# {command line: {flag: names of the files in it, where it is a directory}}; and what it needs.
FLAGS = {
  "commands.train": {"workdir": ("metrics.jsonl", "lock", "config.json", "wandb.json")},
  "commands.evaluate": {
    "per-image": None,
    "per-class": None,
    "save-weights": None,
    "report": ("index.html",),
  },
  "commands.compare": {
    "out": ("results.json", "table.md", "compare.png"),
    "report": ("index.html",),
  },
  "commands.predict": {"picture": None, "features": None},
  "commands.export": {"out": None},
  "commands.benchmark": {"plot": None},
  "commands.measure": {"out": ("measure.json", "index.html")},
  "commands.visualize": {"out": None},
  "commands.parity": {},
  "commands.quickstart": {},
  "targets.check": {"out": None},
  "data.convert": {"out": ()},
}
NEEDED = {
  "commands.train": ["--config=digits"],
  "commands.export": ["--format=safetensors"],
  "commands.predict": ["a.png"],
  "data.convert": ["--name=x"],
}
ONES = [(name, flag) for name, given in FLAGS.items() for flag in given]
# What names something to read, or nothing on a disk.
OTHERS = {
  *(
    "config",
    "weights",
    "weights-key",
    "weights-of",
    "step",
    "artifact",
    "images",
    "results",
    "parts",
  ),
  *("speedup", "calibrate-speedup"),
  *("budget", "budgets", "calibrate", "calibrate-split", "execution", "dtype", "variant", "format"),
  "speedups",
  *("reduction", "image-size", "methods", "push-to-hub", "target", "name", "data-dir", "only"),
  *("counts", "zero-shot"),
  "workdir",  # of the tools, which read it
}


@contextlib.contextmanager
def parsed(name, *arguments):
  """The flags of a command line, with values; yields the positional arguments."""
  module = importlib.import_module(f"asvit_jax.{name}")
  before = set(flags.FLAGS)
  argv = [name, *NEEDED.get(name, ()), *arguments]
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(sys, "argv", argv)
    try:
      module.define_flags()
      yield flags.FLAGS(argv)[1:]
    finally:
      for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)


def refused(name, flag, value):
  """The error that a value of a flag gets, or None."""
  with parsed(name, f"--{flag}={value}") as arguments:
    try:
      outputs.check(command._INPUTS, arguments)
    except InputError as error:
      assert "\n" not in str(error) or "\n" in value
      return error
  return None


@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_is_known_to_name_an_output_or_not(name):
  before = set(flags.FLAGS)
  with parsed(name, *(f"--{flag}=x" for flag in FLAGS[name])):
    ours = set(flags.FLAGS) - before
    named = {flag for flag in ours if hasattr(flags.FLAGS[flag], "output")}
    texts = {flag for flag in ours if flags.FLAGS[flag].flag_type().split()[0] not in ("bool",)}
    texts -= {f for f in ours if isinstance(flags.FLAGS[f].value, (int, float, bool))}
    numbers = {f for f in ours if "int" in flags.FLAGS[f].flag_type()}
  assert named == set(FLAGS[name])
  assert texts - numbers - named <= OTHERS
  if name.startswith("commands."):
    assert name.removeprefix("commands.") in commands.COMMANDS
  assert len(commands.COMMANDS) == sum(name.startswith("commands.") for name in FLAGS)


@pytest.mark.parametrize("name, flag", ONES)
def test_what_is_there_stays_and_gets_a_line(tmp_path, monkeypatch, name, flag):
  monkeypatch.chdir(tmp_path)
  files = FLAGS[name][flag]
  for kind, make in (places.REFUSED | places.WRITTEN).items():
    root = tmp_path / kind
    root.mkdir()
    make(root / "out")
    before = places.snapshot(root)
    error = refused(name, flag, f"{root}/out")
    assert places.snapshot(root) == before
    if files is None:
      assert (error is None) == (kind in places.WRITTEN), (kind, error)
    else:
      good = kind in ("nothing", "directory", "empty directory", "link to a directory")
      assert (error is None) == (good or kind == "files of names like those"), (kind, error)
    for file in files or ():
      inside = root / f"directory of {file}"
      inside.mkdir()
      if name == "commands.train" and file != "config.json":  # a run's; others stay as they are
        (inside / "config.json").write_text('{"optimizer": {}}')
      make(inside / file)
      before = places.snapshot(inside)
      error = refused(name, flag, inside)
      assert places.snapshot(inside) == before
      assert (error is None) == (kind in places.WRITTEN), (kind, error)


@pytest.mark.parametrize("name, flag", ONES)
def test_names_of_nothing_get_a_line(tmp_path, monkeypatch, name, flag):
  monkeypatch.chdir(tmp_path)
  places.fill(tmp_path)
  before = places.snapshot(tmp_path)
  directory = FLAGS[name][flag] is not None
  for kind, text in (places.NAMES | places.GOOD_NAMES).items():
    error = refused(name, flag, text.format(root=tmp_path))
    assert places.snapshot(tmp_path) == before
    if (flag, kind) == ("out", "of 255 characters") and "export" in name:
      assert "the note of safetensors" in str(error)  # which has five more
    elif kind in places.GOOD_NAMES:
      assert error is None, kind
    elif not directory or kind not in ("here", "above", "root", "slash", "dot", "dots"):
      assert error is not None, kind


@pytest.mark.parametrize("name", [name for name in FLAGS if name.startswith("commands.")])
def test_a_bad_output_ends_the_command_before_it_begins(tmp_path, monkeypatch, capsys, name):
  (tmp_path / "link").symlink_to(tmp_path / "nowhere")
  name = name.removeprefix("commands.")
  for flag in FLAGS[f"commands.{name}"]:
    module = importlib.import_module(f"asvit_jax.commands.{name}")
    monkeypatch.setattr(module, "main", lambda _: pytest.fail("it began"))
    argv = [name, *NEEDED.get(f"commands.{name}", ()), f"--{flag}", str(tmp_path / "link")]
    monkeypatch.setattr(sys, "argv", argv)
    before = set(flags.FLAGS)
    try:
      with pytest.raises(SystemExit) as ended:
        commands.run(name)
    finally:
      for ours in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, ours)
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    (error,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert re.fullmatch(r"error: cannot write .*/link: it is a link to .*nowhere.*", error)
    assert "Traceback" not in said.err


def test_so_does_it_of_the_other_tools(tmp_path):
  _ = [os.mkfifo(tmp_path / name) for name in ("a", "b")]
  convert = ("asvit_jax.data.convert", "--name=x", f"--out={tmp_path}/a")
  assert_one_error(call("-m", *convert), "cannot write to --out", "it is a pipe")
  check = ("asvit_jax.targets.check", f"--out={tmp_path}/b")
  assert_one_error(call("-m", *check), "cannot write --out to", "it is a pipe")


def test_no_output_takes_the_place_of_what_is_read(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  image, weights = tmp_path / "a.png", tmp_path / "w.safetensors"
  image.write_text("an image")
  weights.write_text("weights")
  for name, *arguments in (
    ("predict", "--picture", image, image),
    ("predict", "--picture", "sub/../a.png", image),
    ("predict", "--features", weights, "--weights", weights, "b.png"),
    ("predict", "--features", "new", "--picture", tmp_path / "new", "b.png"),
    ("visualize", "--out", image, "b.png", image),
    ("evaluate", "--per-image", "new", "--per-class", "new"),
    ("evaluate", "--per-image", weights, "--weights", weights),
    ("export", "--format=safetensors", "--out", weights, "--results", weights),
  ):
    with pytest.raises(InputError, match=r"would overwrite .*: give another name"):
      run(name, *arguments)
  with pytest.raises(InputError, match=r"w\.safetensors"):  # which are none
    run("evaluate", "--weights", weights, "--save-weights", weights)
  assert (image.read_text(), weights.read_text()) == ("an image", "weights")


def test_what_a_comparison_and_a_run_write_in_is_no_link_out(tmp_path):
  other = tmp_path / "other"
  other.mkdir()
  for name, flag, inside in (
    ("commands.compare", "out", "measured"),
    *(("commands.train", "workdir", d) for d in ("checkpoints", "pictures", "lists", "damaged")),
    ("commands.train", "workdir", "tensorboard"),
  ):
    for make in (lambda p: p.symlink_to(other), lambda p: p.write_text("")):
      place = tmp_path / f"{name} {inside} {len(list(tmp_path.iterdir()))}"
      place.mkdir()
      make(place / inside)
      assert inside in str(refused(name, flag, place))
  place = tmp_path / "run"
  (place / "checkpoints").mkdir(parents=True)
  (place / "checkpoints" / "5").symlink_to(other)
  assert "checkpoints/5: it is a link" in str(refused("commands.train", "workdir", place))


def test_the_tiny_network_is_written_over_a_link_by_nobody(tmp_path):
  (tmp_path / "mine").write_text(places.MINE)
  (tmp_path / "w").symlink_to(tmp_path / "mine")
  with pytest.raises(InputError, match=r"link to .*/mine: give that path itself"):
    tiny.network(tiny.TRAINED).save(tmp_path / "w")
  assert (tmp_path / "mine").read_text() == places.MINE
