"""Tables of parts; and what holds for every table of the package."""

import importlib
import subprocess
import sys

import pytest

from asvit_jax.core.errors import InputError
from asvit_jax.core.parts import Table

# Every table, and what its parts can do.
TABLES = {
  "asvit_jax.data.sources:SOURCES": ("open", "class_names"),
  "asvit_jax.vit.stems:STEMS": ("macs", "__call__"),
  "asvit_jax.sparsity.attentions:ATTENTIONS": ("dense", "masked", "prefix"),
  "asvit_jax.sparsity.scores:SCORES": ("uses_keys", "gather", "__call__"),
  "asvit_jax.sparsity.reductions:REDUCTIONS": ("changes_tokens", "uses_keys", "__call__"),
  "asvit_jax.sparsity.executions:EXECUTIONS": ("__call__",),
  "asvit_jax.losses.terms:LOSSES": ("applies", "__call__"),
  "asvit_jax.optimizers.building:OPTIMIZERS": ("__call__",),
  "asvit_jax.weights.formats:FORMATS": ("expects", "recognizes", "read"),
  "asvit_jax.export.formats:FORMATS": ("needs", "write", "load", "verify"),
}


def table(place):
  module, _, name = place.partition(":")
  return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("place", TABLES)
def test_every_part_of_every_table_is_there_and_does_what_its_kind_does(place):
  parts = table(place)
  assert len(parts) == len(parts.names) > 0
  for name in parts:
    assert [a for a in TABLES[place] if not hasattr(parts[name], a)] == []
    parts.check(name)


@pytest.mark.parametrize("place", TABLES)
def test_an_unknown_name_is_refused_with_the_key_and_the_choices(place):
  parts = table(place)
  with pytest.raises(InputError) as caught:
    parts.check("nothing")
  message = str(caught.value)
  assert message.startswith(f"{parts.key} 'nothing' is not known: choose from ")
  assert all(name in message for name in parts)


def test_your_own_part_needs_no_table():
  parts = Table("number", "key", {"pi": "math:pi"})
  assert parts["math:e"] == importlib.import_module("math").e
  assert "math:e" not in parts
  for name, said in (
    ("no_such_module:x", "key 'no_such_module:x' cannot be imported: No module"),
    ("math:tau2", "key 'math:tau2' cannot be imported: .*has no attribute 'tau2'"),
  ):
    with pytest.raises(InputError, match=said):
      parts.check(name)


def test_a_part_that_is_an_object_is_returned_as_it_is():
  circle, later = object(), {"pi": "math:pi"}
  parts = Table("number", "key", {"circle": circle} | later)
  assert parts["circle"] is circle
  parts.check("circle")
  assert parts["pi"] == importlib.import_module("math").pi  # beside the text of another
  assert parts.names == tuple(parts) == ("circle", "pi")
  parts["none"] = 0  # any object but a text, whatever its truth
  assert parts["none"] == 0 and "none" in parts and len(parts) == 3
  with pytest.raises(InputError, match="key 'circel' is not known: choose from circle, pi, none"):
    parts.check("circel")


def test_what_is_missing_for_a_part_of_ours_is_no_bad_input():
  parts = Table("number", "key", {"gone": "no_such_module:x"})
  with pytest.raises(ModuleNotFoundError, match="no_such_module"):
    parts.check("gone")


def test_listing_the_names_that_commands_list_imports_none_of_the_parts():
  places = ["asvit_jax.sparsity.executions:EXECUTIONS", "asvit_jax.export.formats:FORMATS"]
  script = (
    "import sys, importlib\n"
    f"for place in {places!r}:\n"
    "  module, name = place.split(':')\n"
    "  assert getattr(importlib.import_module(module), name).names\n"
    "heavy = {'jax', 'flax', 'optax', 'orbax', 'tensorflow_datasets', 'safetensors', 'grain'}\n"
    "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
  )
  process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
  assert process.returncode == 0, process.stderr
