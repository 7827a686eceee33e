"""Names of the leaves of a tree of arrays, "blocks.0.attn.qkv.kernel", and their checksums."""

import zlib

import jax
import numpy as np


def name(path):
  """The name of a leaf from its path, as `jax.tree_util` gives it."""
  return jax.tree_util.keystr(path, simple=True, separator=".")


def named(tree):
  """[(name, leaf)], in the order of `jax.tree.leaves`."""
  return [(name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def map_named(function, tree, *rest):
  """Maps a function of (name, leaf, *leaves of `rest`) over trees of the same structure."""
  return jax.tree_util.tree_map_with_path(
    lambda path, *leaves: function(name(path), *leaves), tree, *rest
  )


def equal(a, b):
  """Whether two trees have the same structure and leaves of equal types, shapes and values.

  Never raises: a leaf whose values cannot be read (traced, deleted, or on another host) equals only
  itself.
  """
  if jax.tree.structure(a) != jax.tree.structure(b):
    return False
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(x is y or _equal(x, y) for x, y in pairs)


def _equal(x, y):
  try:
    if np.shape(x) != np.shape(y) or getattr(x, "dtype", None) != getattr(y, "dtype", None):
      return False
    x, y = np.asarray(x), np.asarray(y)
    same = (x == y) | ((x != x) & (y != y))  # NaN equals NaN
    return bool(np.all(same))
  except Exception:  # JAX raises different errors for different kinds of arrays
    return False


def count(tree):
  """Number of scalars in a tree of arrays."""
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def checksums(tree):
  """{name of a leaf: CRC-32 of its bytes, shape and type}."""
  return {leaf_name: _checksum(np.asarray(leaf)) for leaf_name, leaf in named(tree)}


def fingerprint(tree):
  """A CRC-32 of a tree of arrays, by which to tell different trees apart."""
  return zlib.crc32(repr(sorted(checksums(tree).items())).encode())


def _checksum(array):
  header = f"{array.shape}{array.dtype}".encode()
  return zlib.crc32(np.ascontiguousarray(array).tobytes(), zlib.crc32(header))
