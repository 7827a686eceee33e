import jax.numpy as jnp
import numpy as np

from asvit_jax.core import leaves

TREE = {"blocks": [{"kernel": jnp.ones((2, 3))}, {"kernel": jnp.zeros(4)}], "head": jnp.ones(())}


def test_names_are_dotted_and_in_the_order_of_the_leaves():
  assert [name for name, _ in leaves.named(TREE)] == ["blocks.0.kernel", "blocks.1.kernel", "head"]
  assert leaves.count(TREE) == 6 + 4 + 1


def test_mapping_hands_over_names_and_the_leaves_of_all_trees():
  seen = []
  summed = leaves.map_named(lambda name, a, b: seen.append(name) or a + b, TREE, TREE)
  assert seen == ["blocks.0.kernel", "blocks.1.kernel", "head"]
  np.testing.assert_array_equal(summed["blocks"][0]["kernel"], 2 * np.ones((2, 3)))


def test_a_fingerprint_tells_values_shapes_types_and_names_apart():
  trees = [
    {"a": np.zeros(4, np.float32)},
    {"a": np.zeros((2, 2), np.float32)},
    {"a": np.zeros(4, np.int32)},
    {"b": np.zeros(4, np.float32)},
    {"a": np.array([0, 0, 0, 1e-30], np.float32)},
    {},
  ]
  assert len({leaves.fingerprint(tree) for tree in trees}) == len(trees)
  assert leaves.fingerprint(trees[0]) == leaves.fingerprint({"a": jnp.zeros(4)})
