"""`--config`: a recipe by its name, its place in the repository, or a file of one's own."""

import sys

import pytest
import tiny
from absl import flags
from command_lines import assert_one_error, call
from ml_collections import config_flags

from asvit_jax.config import identity
from asvit_jax.core import recipes
from asvit_jax.core.errors import InputError

# Name: an argument that it takes, or None.
ARGUMENTS = {
  "as_deit_b": "dense",
  "as_deit_s": "0.5",
  "as_deit_t": "0.9",
  "as_deit_t_sample": "dense",
  "as_digits": "0.7",
  "as_lvvit_m": "0.67",
  "as_lvvit_s": "dense",
  "digits": None,
}


def load(monkeypatch, *arguments):
  """The config that a command line gets."""
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", None, flag_values=values, lock_config=True)
  monkeypatch.setattr(sys, "argv", ["asvit", *recipes.in_place_of_names(arguments)])
  values(sys.argv)
  return values.config


def test_all_recipes_are_known(repository):
  files = [path.stem for path in (repository / "configs").glob("*.py")]
  assert recipes.names() == sorted(files) == sorted(ARGUMENTS)


@pytest.mark.parametrize("form", ["{}", "configs/{}.py", "{}.py", "/{}.py"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_recipe_is_loaded_from_anywhere_with_or_without_an_argument(
  repository, tmp_path, monkeypatch, name, form
):
  monkeypatch.chdir(tmp_path)
  given = form.format(name)
  if form.startswith("/"):
    given = f"{repository}/configs/{name}.py"
  config = load(monkeypatch, "--config", given)
  assert config.to_json() == recipes.load(name).to_json()
  argument = ARGUMENTS[name]
  if argument is not None:
    changed = load(monkeypatch, f"--config={given}:{argument}")
    assert changed.to_json() == recipes.load(name, argument).to_json() != config.to_json()
    assert changed.budget == (None if argument == "dense" else float(argument))


@pytest.mark.parametrize("way", ["--config {}", "--config={}", "-config {}", "-config={}"])
def test_keys_are_changed_however_the_recipe_is_given(tmp_path, monkeypatch, way):
  monkeypatch.chdir(tmp_path)
  given = way.format("as_digits:0.3").split()
  config = load(monkeypatch, *given, "--config.batch_size=7", "--config.model.width", "24")
  assert (config.budget, config.batch_size, config.model.width) == (0.3, 7, 24)


@pytest.mark.parametrize("path", ["digits", "configs/digits.py", "digits.py"])
def test_a_file_that_is_there_comes_before_a_recipe_of_its_name(tmp_path, monkeypatch, path):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "configs").mkdir()
  text = "from asvit_jax.config import base\n\n\ndef get_config(seed='123'):\n"
  text += "  config = base()\n  config.seed = int(seed)\n  return config\n"
  (tmp_path / path).write_text(text)
  assert load(monkeypatch, "--config", path).seed == 123
  assert load(monkeypatch, "--config", f"{path}:4").seed == 4
  assert recipes.load("digits").seed == 0


@pytest.mark.parametrize(
  "given", ["none", "configs/none.py", "configs/none.py:0.5", "other/digits"]
)
def test_an_unknown_name_is_a_missing_file(tmp_path, given):
  for form in ((f"--config={given}",), ("--config", given)):
    process = call("-m", "asvit_jax", "train", *form, "--workdir", "w", cwd=tmp_path)
    assert_one_error(process, given.partition(":")[0], "No such file or directory")
    assert "choose from as_deit_b, " in process.stderr


def test_recipes_are_loaded_in_python_by_name():
  assert recipes.load("as_digits", "0.25").budget == 0.25
  assert recipes.load("as_digits").batch_size == recipes.load("digits").batch_size == 64
  with pytest.raises(InputError, match=r"recipe 'none' is not known: choose from as_deit_b, .*dig"):
    recipes.load("none")


def test_configs_that_were_changed_do_not_come_back():
  config = recipes.load("digits")
  config.batch_size = 3
  assert recipes.load("digits").batch_size == 64


@pytest.mark.parametrize("name", ["as_deit_t_sample", "as_deit_t", "as_deit_s", "as_deit_b"])
@pytest.mark.parametrize("budget", ["0.65", "dense"])
def test_tokens_are_merged_where_the_argument_says_so(name, budget):
  config = recipes.load(name, f"{budget},merge")
  assert config.budget == (None if budget == "dense" else 0.65)
  arch = tiny.architecture(config)
  assert (arch.reduction, arch.score, arch.stages) == ("merge_tokens", "merge_cost", 5)
  assert tiny.architecture(recipes.load(name, budget)).reduction == "drop"


IMAGENET = {"as_deit_t", "as_deit_s", "as_deit_b", "as_lvvit_s", "as_lvvit_m"}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_recipes_for_imagenet_train_in_bfloat16_and_mix_as_deit_does(name):
  config = recipes.load(name)
  expected = ("bfloat16", "batch") if name in IMAGENET else ("float32", "pairs")
  assert (config.model.dtype, config.mix.mode) == expected
  if name in IMAGENET:  # what is published of the dense networks was measured in float32
    assert recipes.load(name, "dense").model.dtype == "float32"


@pytest.mark.parametrize("name", ARGUMENTS)
def test_recipes_for_imagenet_average_weights_as_the_paper_does(name):
  """By a constant decay. Dense, they are moved to other data, in steps too few for that."""
  config = recipes.load(name)
  assert config.ema_warmup == (name not in IMAGENET)
  if name in IMAGENET:
    assert (config.ema_decay, recipes.load(name, "0.7").ema_warmup) == (0.99996, False)
    assert recipes.load(name, "dense").ema_warmup


def test_a_run_that_a_recipe_of_before_began_goes_on_and_another_is_not_taken_for_it(tmp_path):
  """With the warm-up, which its config has."""
  config = recipes.load("as_deit_t")
  before = config.copy_and_resolve_references()
  before.ema_warmup = True
  identity.save(tiny.plan(before), tmp_path)
  begun = identity.load(tmp_path)
  assert begun.ema_warmup
  identity.check_config(identity.as_begun(tiny.plan(begun), tmp_path), tmp_path)
  with pytest.raises(InputError, match="ema_warmup was True, is False"):
    identity.check_config(identity.as_begun(tiny.plan(config), tmp_path), tmp_path)


@pytest.mark.parametrize("argument", ["0.65,fuse", "half", "0.65,merge,merge", ",merge"])
def test_an_argument_that_means_nothing_is_refused(argument):
  with pytest.raises(InputError, match=f"argument '{argument}': expected"):
    recipes.load("as_deit_t", argument)
