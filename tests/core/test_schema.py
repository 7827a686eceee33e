import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asvit_jax.core import schema
from asvit_jax.core.errors import InputError

NETWORK = schema.table(
  {
    "width": schema.integer(1, 100),
    "ratio": schema.number(0, 1),
    "names": schema.either(schema.NULL, schema.array(schema.text(5), 1, 3)),
    "mode": schema.text(choices=("a", "b")),
    "deep": schema.table({"on": schema.BOOLEAN}, others=False),
  },
  required=["width"],
)


@pytest.mark.parametrize(
  "content, said",
  [
    ('{"width": 101}', "width is 101, expected at most 100"),
    ('{"width": 0}', "width is 0, expected at least 1"),
    ('{"width": 3.0}', "width is 3.0, expected a whole number"),
    ('{"width": true}', "width is True, expected a whole number"),
    ('{"width": 1, "ratio": NaN}', "ratio is nan, expected a finite number"),
    ('{"width": 1, "ratio": 1e999}', "ratio is inf, expected a finite number"),
    ('{"width": 1, "names": []}', "names is \\[\\], expected null or at least 1 items"),
    ('{"width": 1, "names": ["a", 2]}', "names is .*, expected null or text"),
    ('{"width": 1, "mode": "c"}', "mode is 'c', expected one of a, b"),
    ('{"width": 1, "deep": {"off": 1}}', "deep is .*, expected no other keys than on"),
    ("{}", "it is {}, expected an object with 'width'"),
    ("[]", "it is \\[\\], expected an object of names and values"),
    ("", "is not JSON"),
    ("{" * 100_000, "is nested too deeply|is not JSON"),
    ('{"width":' + "[" * 40 + "]" * 40 + "}", "is nested too deeply"),
    (b"\xff\xfe{", "is not JSON"),
    ("9" * 5000, "is not JSON"),
  ],
)
def test_what_is_wrong_is_named_by_its_place(content, said):
  with pytest.raises(InputError, match=said):
    schema.loads(content, NETWORK, "the note")


def test_a_message_is_short_whatever_the_value():
  with pytest.raises(InputError) as error:
    schema.loads(json.dumps({"width": ["x" * 1000] * 1000}), NETWORK, "the note")
  assert len(str(error.value)) < 600


def test_a_text_that_is_too_long_is_not_parsed():
  with pytest.raises(InputError, match="expected at most 10"):
    schema.loads("[" * 11, schema.ANY, "it", most_bytes=10)


json_values = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "a", "é\n"]),
  lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("on"), inner),
  max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["width", "ratio", "names", "mode", "deep"]), json_values))
def test_any_value_is_taken_whole_or_refused_in_a_line(value):
  try:
    found = schema.loads(json.dumps(value), NETWORK, "the note")
  except InputError as error:
    assert "\n" not in str(error)
  else:
    assert found == value and 1 <= value["width"] <= 100
