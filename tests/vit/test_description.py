"""What files say of networks: any JSON gives a network, or one line, soon and in little memory."""

import dataclasses
import json
import tracemalloc

import hanging
import numpy as np
import pytest
import safetensors.numpy
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asvit_jax import config as config_lib
from asvit_jax import vit
from asvit_jax.config import identity
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line
from asvit_jax.network import load
from asvit_jax.run import inputs
from asvit_jax.vit import description as descriptions
from asvit_jax.vit.architecture import Architecture
from asvit_jax.weights import saving, to_timm
from asvit_jax.weights.formats.safetensors import DESCRIPTION

ARCH = tiny.TRAINED
FIELDS = [field.name for field in dataclasses.fields(Architecture)]
SETTINGS = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

scalars = (
  st.none()
  | st.booleans()
  | st.integers()
  | st.floats()
  | st.text(max_size=8)
  | st.sampled_from(
    [10**30, -1, 0, 1, 2**31, 1e-300, "drop", "os:system", "\x1b]0;a\x07", "\ud800"]
  )
)
values = st.recursive(
  scalars,
  lambda inner: (
    st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from([*FIELDS, "mean", "a"]), inner, max_size=3)
  ),
  max_leaves=8,
)


def a_line(error):
  """Whether an error says what is wrong, in a line that a terminal can show."""
  message = str(error.value if hasattr(error, "value") else error)
  first = message.split("\n")[0]
  assert 0 < len(first) < 1200
  return on_a_line(first) == first


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize(
  "value",
  [
    *(None, "", "a", "12", 1.5, float("nan"), float("inf"), -1, [], {}, [None], [[1]], 10**400),
    *(range(10**9), np.zeros((2, 2)), np.array(1), b"a", object(), {"a": 1}, lambda: None),
  ],
  ids=lambda value: str(value)[:20],
)
def test_no_type_is_a_traceback(name, value):
  """And what is taken has the form that every field has."""
  with hanging.never():
    try:
      arch = dataclasses.replace(ARCH, **{name: value})
    except InputError as error:
      assert a_line(error)
    else:
      hash(arch)
      assert json.loads(json.dumps(arch.to_json())) == arch.to_json()
      assert Architecture.from_json(arch.to_json(), "it") == arch


@pytest.mark.parametrize(
  "fields",
  [
    {"depth": 3000},
    {"width": 30000, "heads": 1},
    {"prune_before": list(range(1, 100_000))},
    {"classes": 10**9},
    {"image_size": 10**6, "patch_size": 1},
    {"score_exponents": [float("nan"), 1.0]},
    {"stage_weights": [1e308, 1.0, 1.0]},
    {"mlp_ratio": 1e9},
    {"norm_epsilon": -1.0},
    {"residual_divisor": 0},
  ],
  ids=lambda fields: next(iter(fields)),
)
def test_what_no_network_is_is_refused_before_anything_is_made(tmp_path, fields):
  described = tiny.network(ARCH).describe()
  described["architecture"] |= fields
  saving.save(tmp_path / "w.safetensors", tiny.params(ARCH.dense), described)
  tracemalloc.start()
  with hanging.never():
    try:
      with pytest.raises(
        InputError, match=f"w.safetensors: .*{next(iter(fields))}|image size"
      ) as error:
        load(tmp_path / "w.safetensors")
      assert a_line(error)
      assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
      tracemalloc.stop()


def test_sequences_and_numbers_of_numpy_have_one_form():
  of_lists = dataclasses.replace(
    ARCH, prune_before=[1, 2, 3], score_exponents=np.array([1.0, 2.0]), width=np.int64(12)
  )
  assert of_lists == dataclasses.replace(ARCH, score_exponents=(1.0, 2.0))
  assert hash(of_lists) == hash(dataclasses.replace(ARCH, score_exponents=(1.0, 2.0)))
  assert type(of_lists.width) is int and type(of_lists.prune_before) is tuple


@pytest.mark.parametrize("variant", vit.VARIANTS)
def test_networks_that_there_are_keep_within_the_bounds(variant):
  arch = vit.VARIANTS[variant]
  assert Architecture.from_json(json.loads(json.dumps(arch.to_json())), "it") == arch


def test_the_shapes_of_hundreds_of_blocks_are_known_at_once():
  with hanging.never():
    found = vit.specs(dataclasses.replace(ARCH, depth=500, prune_before=()))
    assert len(found["blocks"]) == 500


@pytest.mark.parametrize("variant", ["deit_t", "lvvit_s"])
@pytest.mark.parametrize("budgets", [0, 3])
def test_shapes_are_those_of_what_is_built(variant, budgets):
  arch = dataclasses.replace(vit.VARIANTS[variant], depth=3, prune_before=(1, 2), image_size=48)
  arch = dataclasses.replace(arch, patch_size=16, width=arch.heads * 4)
  built, shapes = vit.initial_params(arch), vit.specs(arch, budgets)
  if budgets:
    built |= {"thresholds": np.zeros((budgets, 2), np.float32)}
  import jax

  assert jax.tree.structure(built) == jax.tree.structure(shapes)
  same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), built, shapes)
  assert all(jax.tree.leaves(same))


def changed(described, where, key, value):
  """A copy of a description with another value."""
  copy = json.loads(json.dumps(described))
  part = copy if where is None else copy[where]
  part[key] = value
  return copy


changes = st.tuples(
  st.sampled_from([None, "architecture", "preprocessing"]),
  st.sampled_from([*FIELDS, "variant", "architecture", "preprocessing", "classes", "budgets"])
  | st.sampled_from(["mean", "std", "crop_ratio", "interpolation", "crop_mode", "\x1b"]),
  values,
)


def check_weights(directory, change):
  described = tiny.network(ARCH, classes=("a", "b", "c")).describe()
  # Written as a stranger may: `saving.save` refuses what could not be read.
  tensors, said = to_timm(tiny.params(ARCH)), json.dumps(changed(described, *change))
  path = directory / "w.safetensors"
  safetensors.numpy.save_file(tensors, path, {DESCRIPTION: said})
  try:
    network = load(path)
  except InputError as error:
    assert a_line(error)
  else:
    assert isinstance(json.dumps(network.describe()), str)
    assert network.arch.to_json().keys() <= set(FIELDS)


def check_run(directory, change):
  """A config and a description in a workdir."""
  where, key, value = change
  config = config_lib.base().to_dict()
  config = changed(config, "model" if where else None, key if where else "seed", value)
  (directory / "config.json").write_text(json.dumps(config))
  described = changed(tiny.network(ARCH).describe(), where, key, value)
  (directory / "network.json").write_text(json.dumps(described))
  (directory / "inputs.json").write_text(json.dumps({"images": value, "teacher": 1, key: value}))

  for read in (
    lambda: tiny.architecture(identity.load(directory)),
    lambda: identity.load_description(directory),
    lambda: inputs.check({"images": 1, "teacher": 1}, directory),
  ):
    try:
      read()
    except InputError as error:
      assert a_line(error)


@settings(max_examples=25, **SETTINGS)
@given(change=changes)
def test_any_json_in_weights_is_a_network_or_a_line(tmp_path, change):
  check_weights(tmp_path, change)


@settings(max_examples=25, **SETTINGS)
@given(change=changes)
def test_any_json_in_a_workdir_is_a_run_or_a_line(tmp_path, change):
  check_run(tmp_path, change)


@pytest.mark.slow
@settings(max_examples=800, **SETTINGS)
@given(change=changes)
def test_any_json_at_all(tmp_path, change):
  check_weights(tmp_path, change)
  check_run(tmp_path, change)


@settings(max_examples=25, **SETTINGS)
@given(value=values)
def test_any_json_in_place_of_all_is_refused_in_a_line(tmp_path, value):
  text = json.dumps(value)
  for name, read in (
    ("config.json", identity.load),
    ("network.json", identity.load_description),
    ("inputs.json", lambda path: inputs.check({"images": 1, "teacher": 1}, path)),
  ):
    (tmp_path / name).write_text(text)
    try:
      read(tmp_path)
    except InputError as error:
      assert a_line(error)
  for loads in (descriptions.loads, descriptions.load_thresholds):
    try:
      loads(text, "it")
    except InputError as error:
      assert a_line(error)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "\x00", "", "1" * 5000, "NaN"])
def test_what_is_hardly_json_is_refused_in_a_line(tmp_path, text):
  for name, read in (("config.json", identity.load), ("network.json", identity.load_description)):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
      read(tmp_path)
    assert a_line(error)


def test_a_million_names_of_classes_are_checked_soon():
  with hanging.never():
    names = ["n"] * 1_000_000
    assert len(descriptions.loads(json.dumps({"classes": names}), "it")["classes"]) == 1_000_000
    with pytest.raises(InputError, match=r"classes\[999999\] is int, expected text"):
      descriptions.loads(json.dumps({"classes": [*names[1:], 3]}), "it")
