import functools

import jax
import numpy as np
import pytest

from asvit_jax import vit
from asvit_jax.sparsity.executions import cache_sized, in_place
from asvit_jax.sparsity.executions.packed import packed

pytestmark = pytest.mark.optimized

# Few rungs compile fast; test_packing tries more.
PACKED = functools.partial(packed, lengths=4, widths=2)
IMAGE = 4 * 17 * 4 * 24  # bytes of the hidden tokens of an image in the tiny network


def run(execution, arch, params, images):
  return jax.jit(lambda p, x: execution(vit.model(arch, p), x))(params, images)


@pytest.mark.parametrize(
  "execution", [in_place.dense, in_place.masked, PACKED], ids=["dense", "masked", "packed"]
)
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
