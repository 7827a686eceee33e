import functools

import jax
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.sparsity.executions import cache_sized, in_place, packed

pytestmark = pytest.mark.optimized

IMAGE = 4 * 17 * 4 * 24  # bytes of the hidden tokens of an image in the tiny network


def run(execution, arch, params, images):
  return jax.jit(lambda p, x: execution(vit.model(arch, p), x))(params, images)


@pytest.mark.parametrize("execution", [in_place.dense, in_place.masked], ids=["dense", "masked"])
@pytest.mark.parametrize(
  "cached",
  [0, 2 * IMAGE, *(pytest.param(n * IMAGE, marks=pytest.mark.slow) for n in (5, 100))],
)
def test_groups_of_images_give_what_the_whole_batch_gives(pruned, execution, cached):
  arch, params, images = pruned
  whole = run(execution, arch, params, images)
  groups = run(cache_sized.cache_sized(execution, cached), arch, params, images)
  np.testing.assert_array_equal(groups.keep, whole.keep)
  np.testing.assert_allclose(groups.logits, whole.logits, atol=2e-5)


@pytest.mark.parametrize(
  ("changes", "sizes"),
  [
    ({"CACHED": 3 * IMAGE, "CACHED_PACKED": 2 * IMAGE}, (3, 2)),
    ({"CACHED": IMAGE, "CACHED_PACKED": 100 * IMAGE}, (1, 6)),
  ],
)
def test_packed_runs_in_groups_that_the_cache_holds(pruned, monkeypatch, changes, sizes):
  for name, value in changes.items():
    monkeypatch.setattr(cache_sized, name, value)
  assert_packed_at(pruned, monkeypatch, *sizes, step=None)


def test_packed_runs_in_a_few_groups_on_an_accelerator(pruned, monkeypatch):
  monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
  for name, value in {"GROUPS": 2, "LEAST": 1, "WIDE_STEP": 5}.items():
    monkeypatch.setattr(cache_sized, name, value)
  assert_packed_at(pruned, monkeypatch, None, 3, step=5)
  monkeypatch.setattr(cache_sized, "LEAST", 8)
  assert_packed_at(pruned, monkeypatch, None, 6, step=5)


def assert_packed_at(pruned, monkeypatch, first, group, step):
  """Packed runs so many images at once, and gives what masked does."""
  arch, params, images = pruned
  seen = []

  def noted(model, images, first=None, group=None, step=None):
    seen.append((first, group, step))
    return packed.packed(model, images, first, group, step or 6)

  with monkeypatch.context() as patched:
    patched.setattr(cache_sized, "whole_batch_packed", noted)
    ours = run(cache_sized.packed, arch, params, images)
  assert seen[0] == (first, group, step)
  masked = tiny.run_masked(arch, params, images)
  np.testing.assert_array_equal(ours.keep, masked.keep)
  np.testing.assert_allclose(ours.logits, masked.logits, atol=2e-5)


def test_a_group_is_the_largest_that_fits_and_divides_the_batch(pruned):
  arch, _, _ = pruned
  group = functools.partial(cache_sized.images_at_once, arch)
  image = 4 * (1 + arch.patches) * arch.mlp_ratio * arch.width
  assert group(batch=6, cached=0) == 1
  assert group(batch=6, cached=image) == 1
  assert group(batch=6, cached=5 * image) == 3
  assert group(batch=7, cached=5 * image) == 1
  assert group(batch=6, cached=6 * image) == 6
  assert group(batch=2, cached=6 * image) == 2
  assert cache_sized.images_at_once(vit.VARIANTS["deit_b"], 32, cache_sized.CACHED) == 1


def test_an_accelerator_gets_the_whole_batch(pruned, monkeypatch):
  arch, params, images = pruned
  seen = []

  def execution(model, images):
    seen.append(len(images))
    return in_place.dense(model, images)

  monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
  run(cache_sized.cache_sized(execution, cached=0), arch, params, images)
  assert seen == [len(images)]
