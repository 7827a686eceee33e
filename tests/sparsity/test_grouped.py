import jax
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.sparsity.executions import grouped, in_place, packed

pytestmark = [pytest.mark.optimized, pytest.mark.slow]

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
  groups = run(grouped.in_groups(execution, cached), arch, params, images)
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
    monkeypatch.setattr(grouped, name, value)
  assert_packed_at(pruned, monkeypatch, "cpu", *sizes, step=None)
  monkeypatch.setattr(grouped, "FEW_STAGES", 1)  # and two are many
  assert_packed_at(pruned, monkeypatch, "cpu", *sizes, step=grouped.FEW_STEP)
  monkeypatch.setattr(grouped, "FEW", 5)  # and six are more than a few
  assert_packed_at(pruned, monkeypatch, "cpu", *sizes, step=None)


@pytest.mark.parametrize(("platform", "first"), tiny.few([("tpu", 2), ("default", 6)], ("tpu", 2)))
def test_packed_runs_in_a_few_groups_on_an_accelerator(pruned, monkeypatch, platform, first):
  for name, value in {"GROUPS": 2, "LEAST": 1, "WIDE_STEP": 5, "CACHED": IMAGE}.items():
    monkeypatch.setattr(grouped, name, value)
  monkeypatch.setattr(grouped, "CACHED_ON_TPU", 6 * IMAGE)
  assert_packed_at(pruned, monkeypatch, platform, 6, 3, step=5)
  monkeypatch.setattr(grouped, "CACHED_ON_TPU", 2 * IMAGE)
  assert_packed_at(pruned, monkeypatch, platform, first, 2, step=5)
  monkeypatch.setattr(grouped, "LEAST", 8)
  assert_packed_at(pruned, monkeypatch, platform, first, 6, step=5)


def assert_packed_at(pruned, monkeypatch, platform, first, group, step):
  """On a platform, packed runs so many images at once, and gives what masked does."""
  arch, params, images = pruned
  began, ran = [], []

  def start_packed(model, images, tokens):
    began.append(len(images))
    return packed.start_packed(model, images, tokens)

  def finish_packed(model, tokens_at_stage, group, step=None, tokens=False):
    ran.append((group, step))
    return packed.finish_packed(model, tokens_at_stage, group, step or 6, tokens)

  def there(*args, **branches):
    return branches.get(platform, branches["default"])(*args)

  with monkeypatch.context() as patched:
    patched.setattr(grouped, "start_packed", start_packed)
    patched.setattr(grouped, "finish_packed", finish_packed)
    patched.setattr(jax.lax, "platform_dependent", there)
    ours = run(grouped.packed_in_groups, arch, params, images)
  assert began == [first]
  assert ran == [(group, step)]
  masked = tiny.run_masked(arch, params, images)
  np.testing.assert_array_equal(ours.keep, masked.keep)
  np.testing.assert_allclose(ours.logits, masked.logits, atol=2e-5)
