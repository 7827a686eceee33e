"""The backends of flat execution: which one runs, and at what numbers of rows."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from sparsity.test_flat import KINDS, pruned, run

from asvit_jax import vit
from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.executions import EXECUTIONS, flat, flat_backends, flat_gpu, flat_rows

COUNTS = (12, 9, 6)
# A conditional by a value; those by the platform, which is known, are by constants.
_CHOICE = re.compile(
  r"(%\d+) = stablehlo\.(?:clamp|convert) .*\n\s*%\d+(?::\d+)? = \"stablehlo\.case\"\(\1\)"
)


def lowered_for_gpu(arch, images=64, counts=COUNTS):
  """The program of flat execution for a GPU, before any compiler sees it."""

  def forward(params, images):
    return EXECUTIONS["flat"](vit.model(arch, params, counts=counts), images).logits

  shapes = vit.specs(arch), jax.ShapeDtypeStruct((images, *arch.image_shape), jnp.float32)
  return jax.jit(usual(forward)).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize(("lengths", "waits"), [("rungs", 3), ("capacity", 3), ("once", 1)])
def test_a_gpu_waits_once_a_stage_or_once(lengths, waits, monkeypatch):
  monkeypatch.setitem(flat_backends.BACKENDS, "cuda", (flat_gpu.Triton(lengths),))
  text = lowered_for_gpu(tiny.arch())
  assert len(_CHOICE.findall(text)) == waits
  assert "gpu.triton" in text


def test_what_a_backend_does_not_cover_the_next_one_runs():
  assert "gpu.triton" not in lowered_for_gpu(tiny.arch(width=258, heads=2))


@pytest.mark.parametrize("enough", [(112, 112, 112), (112, 16, 112)])
def test_where_the_capacity_does_not_suffice_all_runs_again(enough):
  arch, params, images = pruned(**KINDS["merge"])
  most = flat_rows.most_rows(len(images), 17)
  expected = run(arch, params, images, tokens=True)
  totals = flat_rows.aligned(np.asarray(expected.kept) + 1).sum(axis=0)
  fits = bool((totals <= enough).all())
  assert fits == (enough == (112, 112, 112))

  @jax.jit
  def forward(params, images):
    def finish(rungs):
      model = vit.model(arch, params)
      outputs = flat.flat(model, images, rungs=rungs, tokens=True)
      again = rungs[0][0] == most
      return dataclasses.replace(outputs, logits=outputs.logits + 100.0 * again)

    return flat_backends.run_at_capacity(finish, enough, most, arch.prefix_tokens)

  ours = usual(forward)(params, images)
  np.testing.assert_allclose(ours.logits, expected.logits + 100.0 * (not fits), atol=1e-4)
  np.testing.assert_array_equal(ours.keep, expected.keep)
  np.testing.assert_array_equal(ours.positions, expected.positions)


def test_capacities_hold_what_rungs_expect():
  arch = tiny.arch()
  model = vit.model(arch, tiny.params(arch), counts=COUNTS)
  for b in (1, 64, 1024):
    found = flat_backends.capacities(model, b, 17)
    most = flat_rows.most_rows(b, 17)
    for enough, lengths in zip(found, flat_backends.rungs(model, b, 17), strict=True):
      assert lengths[len(lengths) // 2 - 1] < enough <= most
      assert enough % flat_rows.ALIGN == 0
  assert found[0] < 1.05 * b * (1 + COUNTS[0] + flat_rows.ALIGN / 2)
