"""The last line of stdout is JSON, whatever a result holds."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asvit_jax.core.plain import plain

SCALARS = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(),
  st.floats(),
  st.text(st.characters()),
  st.text("\ud800\udcff\x00\x1b\u202e"),
  st.floats(width=32).map(np.float32),
  st.floats(width=32).map(np.asarray),
  st.lists(st.floats()).map(np.array),
)
VALUES = st.recursive(
  SCALARS,
  lambda inner: st.one_of(
    st.lists(inner), st.tuples(inner), st.dictionaries(st.text() | st.integers(), inner)
  ),
)


@given(VALUES)
@settings(max_examples=25, deadline=None)
def test_any_value_is_json_for_any_reader(value):
  text = json.dumps(plain(value), allow_nan=False)
  text.encode("ascii")
  again = json.loads(text)
  json.dumps(again, ensure_ascii=False).encode()  # without lone surrogates


def test_numbers_arrays_and_paths_are_what_they_were():
  value = {"a": np.float32(0.5), "b": jnp.arange(3), "c": pathlib.Path("x"), 4: np.bool_(True)}
  value |= {"d": (1, [np.int64(2)]), "e": np.array([np.nan, 1.0]), "f": float("-inf"), "g": {3}}
  assert plain(value) == {
    "a": 0.5,
    "b": [0, 1, 2],
    "c": "x",
    "4": True,
    "d": [1, [2]],
    "e": [None, 1.0],
    "f": None,
    "g": [3],
  }
  assert plain("a\udcff") == "a\\udcff"


def test_what_is_no_value_stays_a_mistake():
  with pytest.raises(TypeError, match="object cannot be written as JSON"):
    plain({"a": object()})
