"""A thread that works ahead: order, errors, and its end."""

import threading
import time

import pytest

from asvit_jax.core.ahead import Ahead


def counted(until, made, closed):
  try:
    for i in range(until):
      made.append(i)
      yield i
  finally:
    closed.append(threading.current_thread().name)


def wait_until(condition):
  for _ in range(500):
    if condition():
      return
    time.sleep(0.01)
  raise AssertionError("it never came true")


def test_all_come_in_order_and_no_more_than_two_are_made_ahead():
  made, closed = [], []
  with Ahead(counted(6, made, closed), lambda i: 10 * i) as ahead:
    for i in range(6):
      wait_until(lambda: len(made) == min(i + 2, 6))  # noqa: B023 (it is asked at once)
      time.sleep(0.02)
      assert len(made) == min(i + 2, 6)
      assert next(ahead) == 10 * i
    assert list(ahead) == []
  assert closed == ["ahead"]


@pytest.mark.parametrize("of", ["items", "function"])
def test_an_error_comes_in_its_place_and_again(of):
  def items():
    yield from (1, 2)
    if of == "items":
      raise OSError("third")
    yield 3

  def function(i):
    if i == 3:
      raise OSError("third")
    return i

  with Ahead(items(), function) as ahead:
    assert [next(ahead), next(ahead)] == [1, 2]
    for _ in range(2):
      with pytest.raises(OSError, match="third"):
        next(ahead)


def test_leaving_early_ends_the_thread_and_closes_the_items():
  made, closed, before = [], [], threading.active_count()
  with pytest.raises(KeyboardInterrupt), Ahead(counted(100, made, closed), str) as ahead:
    next(ahead)
    raise KeyboardInterrupt
  assert threading.active_count() == before
  assert closed == ["ahead"]
  assert len(made) < 5
