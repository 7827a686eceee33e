"""What a step may wait for, and what is in the devices' memory while it runs."""

import contextlib
import gc

import jax
import pytest
import tiny

from asvit_jax.training import parallel, session
from asvit_jax.training.reporting import Reporter
from asvit_jax.training.train import train

pytestmark = pytest.mark.usefixtures("tiny_variant")


@pytest.fixture
def config(folder, dense_weights):
  changes = {"init_from": str(dense_weights), "budget": 0.6, "thresholds": "fixed"}
  changes |= {"total_steps": 4, "checkpoint_every": 100, "eval.every": 100, "eval.pictures": 0}
  return tiny.config(folder, **changes)


@contextlib.contextmanager
def spied(monkeypatch, before_step):
  """Calls `before_step(number, program's arguments)` before every step."""
  make_program = session.make_program

  def spying(*args):
    program, objective = make_program(*args)
    numbers = iter(range(1, 100))

    def call(*args):
      before_step(next(numbers), args)
      return program(*args)

    return call, objective

  with monkeypatch.context() as patched:
    patched.setattr(session, "make_program", spying)
    yield patched


def size(tree):
  return sum(x.nbytes for x in jax.tree.leaves(tree))


@pytest.mark.slow
def test_devices_hold_one_state_and_steps_are_reported_while_the_next_one_runs(
  tmp_path, config, monkeypatch
):
  gc.collect()
  others = {id(x) for x in jax.live_arrays()}  # of fixtures, which outlive this test
  order, held = [], {}

  def before_step(number, args):
    order.append(("step", number))
    mine = [x for x in jax.live_arrays() if id(x) not in others]
    held[number] = size(mine) - size(args), size(args[0].params), size(args[2])

  write = Reporter.write

  def noted(self, step, kind, values):
    order.append((kind, step))
    write(self, step, kind, values)

  with spied(monkeypatch, before_step) as patched:
    patched.setattr(Reporter, "write", noted)
    train(config, tmp_path)
  assert order[:3] == [("step", 1), ("step", 2), ("train", 1)]
  assert order[3:7] == [("step", 3), ("train", 2), ("step", 4), ("train", 3)]
  for more, params, batch in held.values():
    # Two batches, metrics and constants besides what a step takes; no second set of parameters.
    assert more < 2 * batch + params / 2, held


@pytest.mark.slow
def test_nothing_goes_to_the_devices_unasked_once_steps_run(tmp_path, config, monkeypatch):
  seen = []
  with spied(monkeypatch, lambda number, args: seen.append(number)) as patched:
    patched.setattr(
      parallel,
      "shard",
      lambda batch, kind: jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[1:]), batch),
    )
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
      train(config, tmp_path)
  assert seen == [1, 2]  # the first one compiles, which copies constants
