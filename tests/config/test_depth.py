"""A depth is enough: where to prune, which nobody typed, follows it."""

import pytest
import tiny

from asvit_jax import vit
from asvit_jax.config import base
from asvit_jax.config.model import trained_architecture
from asvit_jax.core.errors import InputError
from asvit_jax.vit.architecture import stages_of


def config(**keys):
  made = base()
  made.model.variant = "digits"
  with made.unlocked():
    made.model.update(keys)
  return made


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_stages_of_a_deeper_variant_are_replaced(depth):
  made = config(depth=depth)
  assert trained_architecture(made).depth == depth
  assert tiny.architecture(made).prune_before == stages_of(depth)


def test_stages_that_fit_stay_and_those_that_were_typed_are_named():
  assert tiny.architecture(config(depth=5)).prune_before == vit.VARIANTS["digits"].prune_before
  with pytest.raises(InputError, match=r"model\.prune_before \(1, 2, 4\): expected increasing"):
    tiny.architecture(config(depth=2, prune_before=(1, 2, 4)))


def test_stages_that_weights_say_are_replaced_too():
  described = vit.Architecture(width=64, heads=2, prune_before=(4, 7), stage_weights=(1.0, 2.0))
  found = tiny.architecture(config(depth=3), described)
  assert (found.prune_before, found.stage_weights) == (stages_of(3), ())
