"""Work that a thread does ahead of need."""

import collections
import threading

_SECONDS_TO_END = 10.0  # for the item being made when nobody wants any more
_SECONDS_TO_LOOK = 0.1  # between two looks at whether to stop


class Ahead:
  """Iterates over what a function makes of each item; a thread makes them, in their order.

  An error of the items or of the function is raised where the item would have come, after all
  those before it. It must be closed, best by `with`: then the thread ends, having closed the items.

  Args:
    items: iterator; only the thread reads it.
    function: of an item.
    count: how many results may lie ready.
    stopped: function that says whether to stop, or None. Where it does and nothing lies ready, the
      iteration ends: what is being made may hang, as a read from a disk that is gone does.
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
    """Ends the thread, after the item that it is making; what lies ready is dropped.

    An item that hangs is waited for a while, and where somebody wants to stop only a moment.
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
        del result  # or it would live until the next one is made
    except BaseException as error:  # whatever it is, it belongs to the thread that waits
      self._error = error
    finally:
      close = getattr(self._items, "close", None)
      if close is not None:
        close()
      with self._changed:
        self._ended = True
        self._changed.notify_all()

  def _hand_over(self, result):
    """Adds it to what lies ready and waits for room for the next; False where nobody wants it."""
    with self._changed:
      if not self._closed:
        self._ready.append(result)
        self._changed.notify_all()
      del result
      self._changed.wait_for(lambda: self._closed or len(self._ready) < self._count)
      return not self._closed
