"""JAX's promotion rules: the programs of this package need the default ones.

`JAX_NUMPY_RANK_PROMOTION=raise` and `JAX_NUMPY_DTYPE_PROMOTION=strict` help users find mistakes in
their own code. This package and its libraries mix ranks and types on purpose.
"""

import contextlib
import functools

import jax


def usual(function):
  """Wraps a function so that it runs and is traced under JAX's default promotion rules."""

  @functools.wraps(function)
  def run(*args, **kwargs):
    with rules():
      return function(*args, **kwargs)

  return run


@contextlib.contextmanager
def rules():
  """A context with JAX's default promotion rules, in this thread."""
  with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
    yield
