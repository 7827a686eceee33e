"""What an unknown name may have been meant to be."""

import pytest

from asvit_jax.config import base
from asvit_jax.config.keys import flatten
from asvit_jax.core.nearest import hint, percent_hint
from asvit_jax.network import create
from asvit_jax.sparsity.scores import SCORES


@pytest.mark.parametrize(
  ("given", "meant"),
  [
    ("lr", "optimizer.lr"),  # without its section
    ("optimiser.lr", "optimizer.lr"),
    ("model.drop_pth", "model.drop_path"),
    ("data.drop_path", "model.drop_path"),
    ("ema_decy", "ema_decay"),
    ("model.foo.bar", None),
  ],
)
def test_the_nearest_key_of_the_config_is_named(given, meant):
  assert hint(given, flatten(base())) == ("" if meant is None else f"; did you mean {meant!r}?")


@pytest.mark.parametrize(
  ("given", "meant"),
  [
    *(("65", 0.65), ("65%", 0.65), ("2.5%", 0.025), ("100", 1), ("62.5", 0.625), ("65 %", 0.65)),
    *(("2", None), ("1.5", None), ("0", None), ("-65", None), ("101", None), ("0.65", None)),
    *(("", None), ("%", None), ("x65%", None), ("nan", None), ("65,50", None)),
  ],
)
def test_a_share_in_percent_is_recognized(given, meant):
  assert percent_hint(given) == ("" if meant is None else f"; did you mean {meant:g}?")


def test_parts_and_networks_that_are_not_there_name_the_nearest():
  with pytest.raises(ValueError, match=r"did you mean 'class_attention'\?"):
    SCORES.check("class_attn")
  with pytest.raises(ValueError, match=r"network 'deit_tny' .*; did you mean 'deit_t'\?"):
    create("deit_tny")
