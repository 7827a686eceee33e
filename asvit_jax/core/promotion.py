"""JAX's rules of promotion, which a process may set: programs of this package need the usual ones.

`JAX_NUMPY_RANK_PROMOTION=raise` and `JAX_NUMPY_DTYPE_PROMOTION=strict` find mistakes in a user's
own code. Here, and in the libraries below, arrays of other ranks and types meet on purpose.
"""

import contextlib
import functools

import jax


def usual(function):
  """The function, traced or run under JAX's usual rules, whatever the process is set to."""

  @functools.wraps(function)
  def run(*args, **kwargs):
    with rules():
      return function(*args, **kwargs)

  return run


@contextlib.contextmanager
def rules():
  """A context with JAX's usual rules of promotion, in this thread."""
  with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
    yield
