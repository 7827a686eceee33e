"""Which tokens go on, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from asvit_jax.sparsity import keeping

INF = np.inf


def by_hand(scores, present, threshold, multiple):
  """One image: a set of indices."""
  there = [i for i in range(len(scores)) if present[i]]
  over = [i for i in there if scores[i] > threshold]
  wanted = min(len(there), -(-len(over) // multiple) * multiple)
  return set(sorted(there, key=lambda i: (-scores[i], i))[:wanted])


@pytest.mark.parametrize("multiple", [1, 3, 4, 100])
def test_over_a_threshold_by_hand(multiple):
  rng = np.random.default_rng(multiple)
  scores = rng.integers(0, 8, (20, 13)).astype(np.float32)  # with ties
  scores[:, 0] = INF
  present = rng.random((20, 13)) < 0.7
  present[:, 0] = True
  keep = np.asarray(keeping.over(jnp.asarray(scores), jnp.asarray(present), 4.0, multiple))
  for i in range(20):
    assert set(np.flatnonzero(keep[i])) == by_hand(scores[i], present[i], 4.0, multiple)


def test_the_best_are_as_many_as_asked_for_or_as_there_are():
  scores = jnp.asarray([[INF, 3.0, 9.0, 3.0, 7.0], [INF, 1.0, 2.0, 3.0, 4.0]])
  present = jnp.asarray([[1, 1, 0, 1, 1], [1, 1, 1, 1, 1]])
  kept = keeping.best(scores, present, 3)
  np.testing.assert_array_equal(kept, [[1, 1, 0, 0, 1], [1, 0, 0, 1, 1]])  # of equal ones the first
  kept = keeping.best(scores, present, jnp.asarray([9, 0]))
  np.testing.assert_array_equal(kept, [[1, 1, 0, 1, 1], [0, 0, 0, 0, 0]])
