"""Files of classes that are numbered lists, or that nobody should take in whole."""

import contextlib
import tracemalloc

import hanging
import pytest
from image_sets import make_config

from asvit_jax.core.errors import InputError
from asvit_jax.data import sources
from asvit_jax.data.sources.classes import read_classes


def read(tmp_path, text, directories=()):
  (tmp_path / "classes").write_bytes(text if isinstance(text, bytes) else text.encode())
  return read_classes(tmp_path / "classes", directories)


@pytest.mark.parametrize("form", ["{}. {}", "{}) {}", "{}.  {}"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("directories", [(), ("owl", "cat", "ant")])
def test_a_numbered_list_is_read_in_its_order(tmp_path, form, first, directories):
  lines = [form.format(first + i, name) for i, name in enumerate(("owl", "cat", "ant"))]
  assert read(tmp_path, "\n".join(lines), directories).keys == ("owl", "cat", "ant")
  assert read(tmp_path, "\n".join(lines), lines).keys == tuple(lines)  # as they are called there


def test_a_list_numbered_from_0_may_have_its_lines_in_any_order(tmp_path):
  assert read(tmp_path, "1. cat\n2. ant\n0. owl\n").keys == ("owl", "cat", "ant")


def test_numbers_from_1_in_another_order_are_not_left_out_in_silence(tmp_path):
  with pytest.raises(InputError, match="numbers 1 to 2, in another order"):
    read(tmp_path, "owl 2\ncat 1\n", ("owl", "cat"))
  named = ("level 2", "level 1")
  assert read(tmp_path, "\n".join(named), named).keys == named


def test_whole_numbers_may_be_written_as_floats(tmp_path):
  for text in ('{"owl": 1.0, "cat": 0.0}', "{'owl': 1.0, 'cat': 0.}"):
    assert read(tmp_path, text).keys == ("cat", "owl")


HOSTILE = {
  "deep list": "[" * 100_000 + "]" * 100_000,
  "deep object": '{"a":' * 100_000,
  "deep tuples": "{'a': " + "(" * 5000 + "1" + ")" * 5000 + "}",
  "many signs": "{'a': " + "-" * 1_000_000 + "1}",
  "many words": "{'a': " + "not " * 200_000 + "1}",
  "a long sum": "{'a': " + "+".join("1" * 200_000) + "}",
  "a long literal": "{" + ",".join(f"'{i}': {i}" for i in range(400_000)) + "}",
  "a long number": '{"a": ' + "9" * 5000 + "}",
  "a call": "{'a': __import__('os').getpid()}",
  "a set": "{'a', 'b'}",
  "truth": '{"a": false, "b": true}',
  "no number": '{"a": NaN}',
  "an empty name": '["", "b"]',
  "a blank name": '["a", " "]',
  "no name": '[null, "b"]',
  "a long name": '["a", "' + "b" * 2000 + '"]',
  "a long line": "a\n" + "b" * 100_000,
  "a long label": "a " + "9" * 5000 + "\nb 0\n",
  "zero bytes": "a\0b\nc\n",
  "UTF-16 without a mark": "owl\ncat".encode("utf-16-le"),
  "no text": bytes(range(256)),
  "underscores": '{"1_0": "a"}',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_one_line_in_little_time_and_memory(tmp_path, kind):
  tracemalloc.start()
  with hanging.never():
    try:
      with pytest.raises(InputError, match=r"data\.classes") as error:
        read(tmp_path, HOSTILE[kind])
      _, most = tracemalloc.get_traced_memory()
    finally:
      tracemalloc.stop()
    assert len(str(error.value)) < 1000
    assert "\n" not in str(error.value)
    assert most < 200e6


@pytest.mark.parametrize("text", ["\"\n'\n", "0 \"\n1 '\n", "{\n", "[\n", "1.\n2.\n", "\ufeff"])
def test_odd_lines_are_read_or_refused(tmp_path, text):
  with contextlib.suppress(InputError):
    assert all(read(tmp_path, text).names)


@pytest.mark.parametrize("path", ["/dev/zero", "a\0b", "."])
def test_what_is_no_file_of_classes_is_one_line(path):
  with pytest.raises(InputError, match=r"data\.classes .* cannot be read"):
    sources.class_names(make_config(classes=path).data)


@pytest.mark.parametrize(
  "text",
  [
    "owl\na" + " " * 100_000 + "b\n",
    "owl\na" + " " * 100_000 + ",\n",
    "owl\n" + "a ," * 100_000 + "x\n",
    "a\n" * (1 << 20) + "a\n",
    "{'" + "\\'" * 100_000,
    '{"' + "\\'\\\"" * 100_000 + "\n",
  ],
)
def test_long_files_are_refused_before_they_are_looked_at(tmp_path, text):
  with hanging.never(), pytest.raises(InputError, match=r"data\.classes"):
    read(tmp_path, text)


@pytest.mark.parametrize("space", [" " * 1900, "," * 1900, " ," * 900])
def test_lines_of_separators_take_no_time(tmp_path, space):
  lines = [f"a{space}{i}b" for i in range(3000)]
  with hanging.never(), pytest.raises(InputError, match="expected at most 1,000"):
    read(tmp_path, "0 x\n1 y\n" + "\n".join(lines))


def test_a_heading_is_none_of_the_classes(tmp_path):
  assert read(tmp_path, "name\nowl\ncat\n", ("owl", "cat")).keys == ("owl", "cat")
  assert read(tmp_path, "class\nowl\n", ("class", "owl")).keys == ("class", "owl")
  assert read(tmp_path, "name\nowl\n", ()).keys == ("name", "owl")  # which nobody can know


@pytest.mark.parametrize("form", ["{},{}", "{}: {}", "{} = {}"])
def test_a_table_numbered_from_1_in_order_is_read_in_it(tmp_path, form):
  lines = [form.format(1 + i, name) for i, name in enumerate(("owl", "cat", "ant"))]
  assert read(tmp_path, "\n".join(lines)).keys == ("owl", "cat", "ant")
  assert read(tmp_path, "\n".join(lines), ("cat",)).keys == ("owl", "cat", "ant")


def test_directories_say_whether_a_number_from_1_belongs_to_a_name(tmp_path):
  text = "1 euro\n2 cent\n"
  assert read(tmp_path, text, ("1 euro", "2 cent")).keys == ("1 euro", "2 cent")
  assert read(tmp_path, text, ("euro", "cent")).keys == ("euro", "cent")
  assert read(tmp_path, text).keys == ("1 euro", "2 cent")


def test_separators_are_no_part_of_names(tmp_path):
  assert read(tmp_path, "owl, 1\ncat , 0\n").keys == ("cat", "owl")
