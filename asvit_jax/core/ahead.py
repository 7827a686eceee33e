"""A background thread that computes results before they are needed."""

import collections
import threading

_SECONDS_TO_END = 10.0  # for the item in progress when the iterator is closed
_SECONDS_TO_LOOK = 0.1  # between two checks of `stopped`


class Ahead:
  """Iterates over `function(item)` for each item, in order, computed by a background thread.

  An error of the items or of the function is raised at the position of the item that caused it,
  after all earlier results. Close the object, best with `with`: closing ends the thread, which then
  closes the items.

  Args:
    items: iterator; only the thread reads it.
    function: called with one item.
    count: number of results that may wait, ready to be read.
    stopped: function that returns whether to stop, or None. If it returns True while no result is
      ready, the iteration ends without waiting: the pending item may hang, as on a dead disk.
  """

  def __init__(self, items, function, count=2, stopped=None):
    self._items, self._function, self._count = items, function, count
    self._stopped, self._hurried = stopped or (lambda: False), False
    self._ready, self._changed = collections.deque(), threading.Condition()
    self._ended, self._error, self._closed = False, None, False
    self._thread = threading.Thread(target=self._work, name="ahead", daemon=True)
    self._thread.start()

  def __iter__(self):
    return self

  def __next__(self):
    with self._changed:
      while not self._changed.wait_for(lambda: self._ready or self._ended, _SECONDS_TO_LOOK):
        if self._stopped():
          self._hurried = True
          raise StopIteration
      if self._ready:
        result = self._ready.popleft()
        self._changed.notify_all()
        return result
    if self._error is not None:
      raise self._error
    raise StopIteration

  def __enter__(self):
    return self

  def __exit__(self, kind, *_):
    self._hurried |= kind is KeyboardInterrupt
    self.close()

  def close(self):
    """Ends the thread after the item in progress, and drops results that are ready.

    Waits at most 10 s for an item that hangs, or 1 s if the user asked to stop.
    """
    with self._changed:
      self._closed = True
      self._ready.clear()
      self._changed.notify_all()
    self._thread.join(1.0 if self._hurried else _SECONDS_TO_END)

  def _work(self):
    try:
      for item in self._items:
        result = self._function(item)
        del item
        if not self._hand_over(result):
          break
        del result  # otherwise it stays in memory until the next one is computed
    except BaseException as error:  # of any kind: the waiting thread raises it
      self._error = error
    finally:
      close = getattr(self._items, "close", None)
      if close is not None:
        close()
      with self._changed:
        self._ended = True
        self._changed.notify_all()

  def _hand_over(self, result):
    """Queues a result and waits until there is room for the next; returns False if closed."""
    with self._changed:
      if not self._closed:
        self._ready.append(result)
        self._changed.notify_all()
      del result
      self._changed.wait_for(lambda: self._closed or len(self._ready) < self._count)
      return not self._closed
