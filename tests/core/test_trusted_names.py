"""Who may name parts that are in no table."""

import pytest

from asvit_jax import config as config_lib
from asvit_jax.config import parts as config_parts
from asvit_jax.core import keywords
from asvit_jax.core.errors import InputError
from asvit_jax.core.parts import Table, check_from_file, typed

TABLE = Table("number", "key", {"pi": "math:pi", "mine": "math:tau"})


@pytest.mark.parametrize("name", [None, 3, [], {}, "", ":", "a:", ":b", "..a:b", "a b:c", "a:b.c"])
def test_what_is_no_name_leads_to_no_part(name):
  with pytest.raises(InputError, match=r"key .* is not known: choose from pi"):
    TABLE.check(name)
  assert name not in TABLE


def test_a_file_names_parts_of_tables_and_what_was_typed():
  for name in ("pi", "anything", "", "math:e"):
    check_from_file(name, "key", "F", typed(["math:e"]))
  for name in ("math:pi", "math:e2", "os:system", "math:e "):
    with pytest.raises(InputError, match=r"F(:| names)"):
      check_from_file(name, "key", "F", typed("math:e"))


@pytest.mark.parametrize("name", ["a:b; rm -rf x", "a:$(b)", "a:`b`", "a:b\n", "a:\x1b]0;b\x07"])
def test_no_error_advises_to_type_what_a_shell_would_run(name):
  with pytest.raises(InputError) as error:
    check_from_file(name, "key", "F")
  assert "--parts" not in str(error.value) and str(error.value).isprintable()


def test_all_names_to_type_are_in_one_line():
  config = config_lib.base()
  config.model.score, config.optimizer.name = "mine:score", "mine:optimizer"
  flags = r"--config\.model\.score=mine:score --config\.optimizer\.name=mine:optimizer, or"
  with pytest.raises(InputError, match=f"{flags}.*--parts=mine:score,mine:optimizer"):
    config_parts.check(config, "F", (), config_parts.TRAINING, config_lib.base())


def test_a_name_of_tfds_is_of_the_table():
  config = config_lib.base()
  config.data.name = "tfds:imagenet2012:5.1.0"
  assert config_parts.own(config) == frozenset()
  config.data.name, config.model.stem = "mine:data", "tfds:imagenet2012"
  assert config_parts.own(config) == {"mine:data", "tfds:imagenet2012"}


def test_parts_that_are_not_needed_cannot_be_imported_later():
  config = config_lib.base()
  config.data.name, config.optimizer.name = "mine:data", "mine:optimizer"
  typed_names = typed(["mine:data"])
  config_parts.check(config, "F", typed_names, config_parts.EVALUATION, config_lib.base())
  assert (config.data.name, config.optimizer.name) == ("mine:data", "adamw")
  with pytest.raises(InputError, match=r"F names mine:data.* as its data\.name"):
    config_parts.check(config, "F", (), config_parts.TRAINING, config_lib.base())


@pytest.mark.parametrize("text", ["(" * 100_000, "a=" + "[" * 100_000, "a=-" + "-" * 100_000])
def test_arguments_without_end_are_refused(text):
  with pytest.raises(InputError, match="cannot be read"):
    keywords.parse(text, "optimizer.arguments")
