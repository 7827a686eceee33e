"""Training steps that run attention by kernels, interpreted: `model.kernels`."""

import dataclasses

import pytest
import tiny
from training.test_kinds_of_step import EXACT, assert_near, step

from asvit_jax.core.errors import InputError
from asvit_jax.sparsity import step_kernels
from asvit_jax.training import opening

KINDS = {
  "plain": {},
  "remat": {"model.remat": True},
  "parts": {"accumulate": 2},
  "shard_map": {"parallel": "shard_map"},
}


@pytest.mark.parametrize(
  ("arch", "kind"),
  tiny.few(
    [*(("wide", kind) for kind in KINDS), ("merging", "plain")],
    ("wide", "plain"),
    ("merging", "plain"),
  ),
)
def test_it_takes_the_same_step(arch, kind):
  with step_kernels.interpreted():
    ours, metrics = step(arch, *EXACT.items(), *KINDS[kind].items(), ("model.kernels", True))
  theirs, expected = step(arch, *EXACT.items())
  assert_near(ours, metrics, theirs, expected, 1e-5)


def test_they_run_where_they_are_asked_for():
  """Not interpreted, they would fail on a CPU."""
  with pytest.raises(ValueError, match="interpret"):
    step("wide", *EXACT.items(), ("model.kernels", True), ("seed", 1))


def wanted(**changes):
  return tiny.plan_of("no such directory", **{"model.kernels": True} | changes)


def test_they_need_a_tpu_and_that_is_the_first_check():
  arch = tiny.arch(width=192)
  with pytest.raises(InputError, match=r"model.kernels True .* for a TPU, and this is a cpu"):
    opening.check_kernels(wanted(), arch, "cpu")
  opening.check_kernels(wanted(), arch, "tpu")
  opening.check_kernels(wanted(**{"model.kernels": False}), arch, "cpu")
  with pytest.raises(InputError, match=r"model.kernels True"):
    opening.open_run(wanted())


@pytest.mark.parametrize(
  ("changes", "reason"),
  [
    (dict(width=96), "heads have 32 channels, not 64"),
    (dict(image_size=128), "has 257 tokens, over 256"),
    (dict(width=1088, heads=17), "width is 1088, over 1024"),
    (dict(attention="my_parts:sharper"), "attention is 'my_parts:sharper'"),
  ],
)
def test_what_they_do_not_cover_is_refused(changes, reason):
  arch = dataclasses.replace(tiny.arch(width=192), **changes)
  assert reason in step_kernels.refuses(arch, "float32")
  with pytest.raises(InputError, match=f"{reason}; leave the key at False"):
    opening.check_kernels(wanted(), arch, "tpu")
  assert step_kernels.refuses(tiny.arch(width=192), "bfloat16") is None
