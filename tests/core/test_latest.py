import threading

import pytest

from asvit_jax.core.latest import Latest


def test_what_is_overtaken_is_left_out_and_the_last_value_is_not():
  seen, begun, go_on = [], threading.Event(), threading.Event()

  def slow(value):
    seen.append(value)
    begun.set()
    assert go_on.wait(10)

  latest = Latest(slow)
  latest.wait()
  latest.give(0)
  assert begun.wait(10)
  for value in (1, 2, 3):
    latest.give(value)
  go_on.set()
  latest.wait()
  assert seen == [0, 3]
  latest.give(4)
  latest.wait()
  assert seen == [0, 3, 4]


def test_an_error_comes_out_at_the_next_call():
  def fail(value):
    raise OSError(f"no room for {value}")

  latest = Latest(fail)
  latest.give(1)
  with pytest.raises(OSError, match="no room for 1"):
    latest.wait()
  with pytest.raises(OSError, match="no room for 1"):
    latest.give(2)
