import pytest

from asvit_jax.targets import fitting


class Compiler:
  """Memory of a batch, in bytes, that counts how often it is asked."""

  def __init__(self, memory):
    self.memory, self.asked = memory, []

  def __call__(self, images):
    self.asked.append(images)
    return self.memory(images)


@pytest.mark.parametrize("first", [8, 64, 512, 4096])
@pytest.mark.parametrize("available", [1e4, 1e5, 1e6])
def test_a_linear_memory_is_found_with_two_more_compilations(first, available):
  compiler = Compiler(lambda images: 5000 + 37 * images)
  found = fitting.largest_batch(compiler, available, 8, {first: compiler.memory(first)})
  assert found["largest_batch"] == (available - 5000) // 37 // 8 * 8
  assert found["largest_batch_memory_mb"] * 2**20 == compiler.memory(found["largest_batch"])
  assert len(compiler.asked) <= 2


@pytest.mark.parametrize("bend", [0.5, 0.9, 1.1, 2.0])
def test_what_is_named_was_compiled_and_fits_where_memory_is_not_linear(bend):
  """Short of memory, a compiler trades it for time; or it grows faster than it did."""
  compiler = Compiler(lambda i: 1000 + 10 * min(i, 500) + bend * 10 * max(0, i - 500))
  found = fitting.largest_batch(compiler, 11_000, 4, {64: compiler.memory(64)})
  assert compiler.memory(found["largest_batch"]) <= 11_000
  assert found["largest_batch"] in compiler.asked
  assert found["largest_batch"] >= 0.6 * (500 + 5000 / (10 * bend))
  assert len(compiler.asked) <= 4


def test_where_nothing_fits_it_says_so():
  compiler = Compiler(lambda images: 1e6 + images)
  found = fitting.largest_batch(compiler, 1e5, 8, {64: compiler.memory(64)})
  assert found == {"largest_batch": 0, "largest_batch_memory_mb": None}
  assert len(compiler.asked) <= 2


def test_where_only_the_unit_is_known():
  compiler = Compiler(lambda images: 100 * images)
  found = fitting.largest_batch(compiler, 1000, 2, {2: 200})
  assert found["largest_batch"] == 10
