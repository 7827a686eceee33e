"""A run goes on where the weights that it began with are at another place, and with no others."""

import json
import shutil

import pytest
import tiny

from asvit_jax.config import identity
from asvit_jax.core.errors import InputError
from asvit_jax.run import inputs
from asvit_jax.training.train import train

ARCH = tiny.TRAINED
THEIRS, OTHERS = tiny.params(ARCH.dense), tiny.params(ARCH.dense, 1)


def begun(workdir, config, first=THEIRS, checkpoint=True):
  """The workdir of a run of 24 images that began with `first`, or is from before that was kept."""
  identity.save(tiny.plan(config), workdir)
  inputs.save(inputs.describe([None] * 24, THEIRS, first_params=first), workdir)
  if checkpoint:
    (workdir / "checkpoints" / "2").mkdir(parents=True)
  return workdir


def goes_on(config, workdir, teacher=THEIRS, first=THEIRS):
  """What `train` asks before it goes on."""
  moved = identity.check_config(tiny.plan(config), workdir).moved
  found = inputs.describe([None] * 24, teacher, first_params=first)
  inputs.check(found, workdir, moved)
  return list(moved)


@pytest.fixture
def places(tmp_path):
  """Places that are there."""
  for name in ("a", "b"):
    (tmp_path / name).write_text("weights")
  return str(tmp_path / "a"), str(tmp_path / "b")


@pytest.mark.parametrize("budget", [None, 0.6])
@pytest.mark.parametrize("checkpoint", [True, False])
def test_weights_at_another_place_are_known_by_their_checksum(tmp_path, places, budget, checkpoint):
  before, after = (tiny.config("", init_from=place, budget=budget) for place in places)
  workdir = begun(tmp_path / "run", before, checkpoint=checkpoint)
  assert goes_on(before, workdir) == []
  assert goes_on(after, workdir) == ["init_from"]
  with pytest.raises(InputError, match="other weights than those at init_from now"):
    goes_on(after, workdir, first=OTHERS)
  if budget is not None:
    with pytest.raises(InputError, match="another teacher"):
      goes_on(after, workdir, teacher=OTHERS)


def test_the_teacher_at_another_place_is_known_by_its_checksum(tmp_path, places):
  here, there = places
  before, after = (
    tiny.config("", init_from=here, teacher_from=place, budget=0.6) for place in places
  )
  workdir = begun(tmp_path / "run", before)
  assert goes_on(after, workdir) == ["teacher_from"]
  with pytest.raises(InputError, match="another teacher"):
    goes_on(after, workdir, teacher=OTHERS)
  extracted = tiny.config(
    "", init_from=there, init_step="", teacher_from=here, budget=0.6, init_key="model_ema"
  )
  assert goes_on(extracted, workdir) == ["init_from", "init_key"]


def test_a_run_from_before_moves_only_where_its_first_weights_are_done_with(tmp_path, places):
  def run(name, budget, checkpoint):
    before, after = (tiny.config("", init_from=place, budget=budget) for place in places)
    return after, begun(tmp_path / name, before, None, checkpoint)

  after, workdir = run("pruned", 0.6, checkpoint=True)
  assert goes_on(after, workdir, first=OTHERS) == ["init_from"]  # only the teacher is needed
  with pytest.raises(InputError, match="another teacher"):
    goes_on(after, workdir, teacher=OTHERS)
  for name, budget, checkpoint in (("dense", None, True), ("new", 0.6, False)):
    after, workdir = run(name, budget, checkpoint)
    with pytest.raises(InputError, match=r"another config \(init_from was .*a', is .*b'"):
      goes_on(after, workdir)


def test_the_first_weights_of_a_run_stay_those_it_began_with(tmp_path, places):
  config = tiny.config("", init_from=places[0])
  workdir = begun(tmp_path / "run", config)
  # As where it began from the workdir of a run that has gone on since.
  goes_on(config, workdir, first=OTHERS)
  later = inputs.describe([None] * 24, THEIRS, first_params=OTHERS)
  inputs.save(later, workdir)
  assert goes_on(tiny.config("", init_from=places[1]), workdir) == ["init_from"]
  old = begun(tmp_path / "old", config, None)
  inputs.save(later, old)
  assert "first" not in json.loads((old / "inputs.json").read_text())


@pytest.mark.parametrize("key", ["init_from", "teacher_from"])
def test_weights_that_are_gone_are_asked_for_at_their_new_place(tmp_path, places, key):
  config = tiny.config("", budget=0.6, **{"init_from": places[0], key: str(tmp_path / "moved")})
  workdir = tmp_path / "run"
  (tmp_path / "moved").write_text("weights")
  begun(workdir, config)
  (tmp_path / "moved").unlink()
  with pytest.raises(
    InputError, match=rf"{key} .*moved, from.* is missing.* --config\.{key}=PLACE"
  ):
    goes_on(config, workdir)


@pytest.mark.parametrize(
  "content",
  [
    *(b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"images": 24}', b"[" * 10000),
    *(b'{"images": "24", "teacher": 1}', b'{"images": 24, "teacher": 1e400}'),
    *(b'{"images": -1, "teacher": 1}', b'{"images": NaN, "teacher": 1}'),
    *(b'{"images": 24, "teacher": 1, "first": []}', b'{"images": true, "teacher": 1}'),
    b'{"images": 24, "teacher": 1, "class_weights": "balanced"}',
  ],
)
def test_damaged_inputs_are_one_line(tmp_path, content):
  (tmp_path / "inputs.json").write_bytes(content)
  with pytest.raises(InputError, match=r"inputs\.json is damaged") as damaged:
    inputs.read(tmp_path)
  assert "\n" not in str(damaged.value)


@pytest.mark.slow
def test_a_dense_run_goes_on_from_weights_that_were_moved(tmp_path, folder, tiny_variant):
  tiny.network(ARCH.dense, variant="tiny").save(tmp_path / "a.safetensors")
  plain = {"eval.pictures": 0, "eval.every": 100, "checkpoint_every": 100}
  config = tiny.config(folder, init_from=str(tmp_path / "a.safetensors"), total_steps=1, **plain)
  workdir = tmp_path / "run"
  train(config, workdir)
  shutil.move(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
  config.total_steps = 2
  with pytest.raises(InputError, match="is missing"):
    train(config, workdir)
  config.init_from = str(tmp_path / "b.safetensors")
  assert train(config, workdir)["step"] == 2
  assert identity.load(workdir).init_from == config.init_from
  tiny.network(ARCH.dense, seed=1, variant="tiny").save(tmp_path / "c.safetensors")
  config.init_from, config.total_steps = str(tmp_path / "c.safetensors"), 3
  with pytest.raises(InputError, match="other weights than those at init_from now"):
    train(config, workdir)
  assert identity.load(workdir).init_from == str(tmp_path / "b.safetensors")
