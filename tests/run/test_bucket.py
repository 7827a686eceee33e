"""A workdir in an object store: what a disk does for others, and a store does not."""

import json
import time

import hanging
import numpy as np
import pytest
import tiny
from test_checkpoints import save, state, target

from asvit_jax.config import identity
from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.run import lease, lock, metrics
from asvit_jax.run.checkpoints import Checkpoints

pytestmark = pytest.mark.external


@pytest.fixture
def workdir(bucket):
  return storage.path(bucket) / "run"


@pytest.fixture
def fast(monkeypatch):
  monkeypatch.setattr(lease, "RENEWED", 0.2)
  monkeypatch.setattr(lease, "EXPIRES", 2.0)


def test_a_run_is_saved_and_loaded_by_its_url(workdir, tiny_variant):
  config = tiny.config("here", seed=3)
  identity.check_config(tiny.plan(config), workdir)
  assert not workdir.exists()  # the check leaves nothing
  identity.save(tiny.plan(config), str(workdir), {"architecture": {}})
  assert identity.load(str(workdir)).to_dict() == config.to_dict()
  assert identity.load_description(workdir) == {"architecture": {}}
  with pytest.raises(InputError, match=r"seed was 3, is 4"):
    identity.check_config(tiny.plan_of("here", seed=4), workdir)


def test_metrics_are_all_there_after_flush_and_are_cut_where_a_run_goes_on(workdir):
  run = metrics.Metrics(workdir, 0)
  for step in (1, 2, 3):
    run.write(step, "train", {"loss": step / 2})
  run.flush()
  assert [line["loss"] for line in metrics.read(workdir)] == [0.5, 1.0, 1.5]
  run = metrics.Metrics(workdir, 2)
  run.write(3, "train", {"loss": 9.0})
  run.flush()
  assert [line["loss"] for line in metrics.read(workdir)] == [0.5, 1.0, 9.0]
  from asvit_jax.run import tensorboard

  tensorboard.TensorBoard(workdir / "tensorboard", 0)  # takes all events out
  with storage.local(workdir / "tensorboard") as local:
    sizes = [file.stat().st_size for file in local.iterdir()]
  assert len(sizes) == 2
  assert max(sizes) < 200


def test_a_damaged_step_is_passed_over_and_set_aside(workdir):
  save(workdir, 1, 2)
  (file,) = (f for f in (workdir / "checkpoints" / "2" / "params" / "d").iterdir())
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 0x10
  file.write_bytes(bytes(content))
  checkpoints = Checkpoints(workdir)
  assert int(checkpoints.restore(target()).step) == 1
  assert [path.name.split("_")[0] for path in (workdir / "damaged").iterdir()] == ["2"]
  assert checkpoints.steps == [1]
  checkpoints.save(state(2))
  checkpoints.wait()
  tool = Checkpoints(str(workdir), read_only=True)
  assert tool.steps == [1, 2]
  np.testing.assert_array_equal(tool.restore(target()).ema["cls_token"], state(2).ema["cls_token"])


def test_a_second_run_is_refused_while_the_first_renews_its_lease(workdir, fast, monkeypatch):
  monkeypatch.setattr(lease, "_machine", lambda: None)  # as from two machines
  monkeypatch.setattr(lease, "EXPIRES", 10 * hanging.SECONDS)
  with lock.held(workdir) as check:
    with hanging.never(), pytest.raises(InputError, match="another run writes to gs://"):
      lock.held(workdir).__enter__()
    check()
  with hanging.never(), lock.held(workdir):  # it was released
    pass


def test_a_lease_that_nobody_renews_runs_out(workdir, fast, monkeypatch):
  monkeypatch.setattr(lease, "_machine", lambda: None)
  killed = lease.Lease(workdir / "lock")
  killed._thread.run = lambda: None
  killed.__enter__()
  begun = time.monotonic()
  with lock.held(workdir) as check:
    assert 1.5 < time.monotonic() - begun < hanging.SECONDS
    check()
    answers = iter((False, True))  # it comes back, and renews once
    killed._ended.wait = lambda _: next(answers)
    killed._renew()
    with pytest.raises(InputError, match=r"cut off from gs://.*another run has taken over"):
      killed.check()
    check()


def test_a_lease_of_a_dead_process_of_this_machine_is_over_at_once(workdir, monkeypatch):
  if lease._machine() is None:
    pytest.skip("this system does not tell its boots apart")
  content = lock.holder() | {"owner": "x", "machine": lease._machine(), "process": 2**22 + 1}
  storage.write(workdir / "lock", json.dumps(content))
  monkeypatch.setattr(lease, "EXPIRES", 10 * hanging.SECONDS)
  with hanging.never(), lock.held(workdir):
    pass


def test_a_store_that_orbax_does_not_know_is_refused_for_a_workdir(bucket):
  for url, said in (
    ("hdfs://name/run", "Orbax writes checkpoints only to disks and to gs://"),
    ("gs:///run", "names no bucket"),
    (f"{bucket}-of-nobody/run", "cannot write to workdir"),
  ):
    with pytest.raises(InputError, match=said):
      identity.check_config(tiny.plan_of("here"), url)
