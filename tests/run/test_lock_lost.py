"""A lock that is removed, replaced, a link or somebody's file; a lease that cannot be renewed."""

import contextlib
import json
import os
import threading

import places
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.run import lease, lock, metrics
from asvit_jax.run.checkpoints import Checkpoints
from asvit_jax.training.reporting import Reporter
from asvit_jax.training.train import train


def copied(path):
  """As file systems do that number their files anew."""
  content = path.read_bytes()
  path.unlink()
  path.write_bytes(content)


LOST = {
  "removed": lambda path: path.unlink(),
  "replaced": lambda path: (path.unlink(), path.write_text("")),
  "another run's": lambda path: (path.unlink(), path.write_text(json.dumps(lock.holder()))),
  "renamed": lambda path: path.rename(path.with_name("old")),
  "a link": lambda path: (path.unlink(), path.symlink_to("/dev/null")),
  "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
  "a directory": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("how", LOST)
def test_a_lost_lock_stops_the_run_and_lets_no_other_begin(tmp_path, how):
  with lock.held(tmp_path) as check:
    check()
    reporter = Reporter(tmp_path, 0, None, check)
    reporter.write(1, "train", {"loss": 1.0})
    LOST[how](tmp_path / "lock")
    for call in (check, lambda: reporter.write(2, "train", {"loss": 1.0})):
      with pytest.raises(InputError, match=r"lock, .* was removed or replaced: .* to resume"):
        call()
    assert [line["step"] for line in metrics.read(tmp_path)] == [1]
    for second in (lock.held(tmp_path).__enter__, lambda: lock.check(tmp_path)):
      with pytest.raises(InputError, match=r"another run writes|lock: it is a"):
        second()
  if how in ("removed", "replaced", "another run's", "renamed"):
    with lock.held(tmp_path) as check:
      check()


def test_a_lock_that_is_the_same_by_its_content_is_held(tmp_path):
  with lock.held(tmp_path) as check:
    copied(tmp_path / "lock")
    check()


def test_a_second_run_that_begins_all_the_same_writes_alone(tmp_path, monkeypatch):
  """On a file system where directories have no locks."""
  flock = lock.fcntl.flock

  def unknown(file, operation):
    if os.path.isdir(f"/proc/self/fd/{file}"):
      raise OSError(9, "Bad file descriptor")
    flock(file, operation)

  monkeypatch.setattr(lock.fcntl, "flock", unknown)
  with lock.held(tmp_path) as first:
    reporter = Reporter(tmp_path, 0, None, first)
    reporter.write(1, "train", {"loss": 1.0})
    with pytest.raises(InputError, match=f"another run writes to .*process {os.getpid()} on"):
      lock.held(tmp_path).__enter__()
    (tmp_path / "lock").unlink()
    with lock.held(tmp_path) as second:
      with pytest.raises(InputError, match="removed or replaced"):
        reporter.write(2, "train", {"loss": 1.0})
      Reporter(tmp_path, 1, None, second).write(2, "train", {"loss": 2.0})
  assert [line["loss"] for line in metrics.read(tmp_path)] == [1.0, 2.0]


@pytest.mark.parametrize("kind", [kind for kind in places.REFUSED if "empty" not in kind])
def test_a_lock_that_is_no_file_is_refused_and_stays(tmp_path, kind):
  places.REFUSED[kind](tmp_path / "lock")
  before = places.snapshot(tmp_path)
  for call in (lock.held(tmp_path).__enter__, lambda: lock.check(tmp_path)):
    with pytest.raises(InputError, match=r"cannot write to workdir .*: lock: it is a"):
      call()
    assert places.snapshot(tmp_path) == before


def test_a_file_of_somebodys_is_no_lock_and_what_killed_runs_left_is(tmp_path):
  (tmp_path / "lock").write_text(places.MINE)
  for call in (lock.held(tmp_path).__enter__, lambda: lock.check(tmp_path)):
    with pytest.raises(InputError, match=r"lock is not the lock of a run"):
      call()
  assert (tmp_path / "lock").read_text() == places.MINE
  for left in ("", json.dumps(lock.holder()), json.dumps({"host": "a"})[:-3]):
    (tmp_path / "lock").write_text(left)
    lock.check(tmp_path)
    with lock.held(tmp_path) as check:
      check()


@pytest.mark.parametrize(
  "text",
  [
    '{"host": "a\\u001b]0;title\\u0007", "process": 1, "since": "now"}',
    '{"host": ' + 2000 * "[",
    '{"host": 1e999, "process": {}, "since": [1]}',
    '{"host": "' + 5000 * "x",
    "",
    "[]",
  ],
)
def test_whatever_a_held_lock_says_the_second_run_gets_a_line(tmp_path, text):
  with lock.held(tmp_path):
    (tmp_path / "lock").write_text(text)
    with pytest.raises(InputError) as raised:
      lock.held(tmp_path).__enter__()
  assert len(str(raised.value)) < 1000
  assert not set(str(raised.value)) & {"\n", "\x1b", "\x07"}


@pytest.mark.slow
def test_a_run_whose_lock_is_removed_stops_and_goes_on(tmp_path, folder, tiny_variant, monkeypatch):
  config, save = tiny.config(folder), Checkpoints.save

  def removing(checkpoints, state, ranks=None):
    save(checkpoints, state, ranks)
    if int(state.step) == 4:
      (tmp_path / "run" / "lock").unlink()

  monkeypatch.setattr(Checkpoints, "save", removing)
  with pytest.raises(InputError, match="removed or replaced"):
    train(config, tmp_path / "run")
  assert max(line["step"] for line in metrics.read(tmp_path / "run")) == 4
  monkeypatch.setattr(Checkpoints, "save", save)
  assert train(config, tmp_path / "run")["step"] == config.total_steps
  steps = [line["step"] for line in metrics.read(tmp_path / "run", "train")]
  assert steps == list(range(1, config.total_steps + 1))


class Store:
  """One object, as `lease._Object` shows it; a network that can be taken away."""

  def __init__(self):
    self.generation, self.content, self.away = 0, None, False

  def __call__(self, path):
    del path
    return self

  def read(self):
    if self.away:
      raise OSError("no route")
    return self.generation, None if self.content is None else json.loads(self.content)

  def write(self, text, generation):
    if self.away:
      raise OSError("no route")
    if generation != self.generation:
      raise lease._Changed
    self.generation, self.content = self.generation + 1, text
    return self.generation


@pytest.fixture
def store(monkeypatch):
  monkeypatch.setattr(lease, "_Object", store := Store())
  monkeypatch.setattr(lease, "_machine", lambda: None)  # as from two machines
  return store


@pytest.fixture
def clock(monkeypatch):
  """[seconds]: what the clock of this host says."""
  monkeypatch.setattr(lease, "_now", lambda: now[0])
  return (now := [1000.0])


def renew(held, times=1):
  """What its thread does so often."""
  answers = iter([False] * times + [True])
  held._ended.wait = lambda _: next(answers)
  held._renew()


@contextlib.contextmanager
def by_hand(path, monkeypatch):
  monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
  monkeypatch.setattr(threading.Thread, "join", lambda thread: None)
  with lease.Lease(path) as held:
    yield held


def test_a_lease_that_cannot_be_renewed_is_lost_before_another_may_take_it(
  tmp_path, store, clock, monkeypatch
):
  with by_hand(tmp_path / "lock", monkeypatch) as held:
    for _ in range(10):
      clock[0] += lease.RENEWED
      renew(held)
      held.check()
    store.away = True
    begun = clock[0]
    while clock[0] + lease.RENEWED - begun <= lease.EXPIRES - lease.RENEWED:
      clock[0] += lease.RENEWED
      renew(held)
      held.check()
    clock[0] += 0.1
    assert clock[0] - begun < lease.EXPIRES  # nobody else has it yet
    with pytest.raises(InputError, match=r"cut off from .* for more than 50 s"):
      held.check()
    store.away = False
    renew(held)  # nobody has taken it, as what was there says
    held.check()
    store.generation, store.content = 99, json.dumps(json.loads(store.content) | {"owner": "x"})
    renew(held)
    with pytest.raises(InputError, match="another run has taken over"):
      held.check()


def test_an_answer_that_did_not_arrive_is_not_taken_for_a_new_one(
  tmp_path, store, clock, monkeypatch
):
  with by_hand(tmp_path / "lock", monkeypatch) as held:
    store.generation += 1  # it was written, when is not known
    clock[0] += lease.EXPIRES
    renew(held)
    with pytest.raises(InputError, match="cut off"):
      held.check()
    renew(held)
    held.check()


def test_a_lease_whose_object_is_removed_is_lost(tmp_path, store, clock, monkeypatch):
  with by_hand(tmp_path / "lock", monkeypatch) as held:
    store.generation, store.content = 0, None
    renew(held)
    with pytest.raises(InputError, match="cut off"):
      held.check()


def test_an_error_in_reading_does_not_end_its_thread(tmp_path, store, clock, monkeypatch):
  with by_hand(tmp_path / "lock", monkeypatch) as held:
    store.generation += 1
    with monkeypatch.context() as patched:
      patched.setattr(store, "read", lambda: 1 / 0)
      renew(held, 2)
    renew(held, 2)
    held.check()


@pytest.mark.external
@pytest.mark.parametrize(
  "content", [b"no JSON", b"[]", b'{"owner": 1}', b"[" * 10000, b" " * 99999]
)
def test_an_object_that_is_no_lock_gets_a_line(bucket, content):
  from asvit_jax.core import storage

  path = storage.path(bucket) / "run" / "lock"
  storage.write(path, content)
  with pytest.raises(InputError, match=r"the lock gs://.*: no run wrote it"):
    lock.held(path.parent).__enter__()
  assert storage.read(path) == content
