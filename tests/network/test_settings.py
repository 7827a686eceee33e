"""Thresholds, budgets, parameters and names that do not fit a network get one line."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.network import Network, load

ARCH = tiny.TRAINED
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
ROWS = np.array([[0.01, 0.02, 0.03], [0.03, 0.04, 0.05]])
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def network():
  return tiny.network(ARCH).with_thresholds([0.01, 0.02, 0.03])


@pytest.mark.parametrize(
  ("thresholds", "budgets", "said"),
  [
    ([0.1], (), r"thresholds of shape \(1,\): expected one for each of its 3 stages"),
    ([0.1, 0.2], (), r"thresholds of shape \(2,\)"),
    ([0.1] * 4, (), r"thresholds of shape \(4,\)"),
    ([], (), r"thresholds of shape \(0,\)"),
    (0.1, (), r"thresholds of shape \(\)"),
    (ROWS, (), r"thresholds of shape \(2, 3\).*several rows need their budgets"),
    ([[0.1, 0.2], [0.1]], (), "thresholds are not an array"),
    ([0.1, NAN, 0.2], (), "not all finite"),
    ([0.1, INF, 0.2], (), "not all finite"),
    ([0.1, 1e300, 0.2], (), "not all finite"),
    (["a", "b", "c"], (), "not numbers"),
    (None, (), "not numbers"),
    ([True, False, True], (), "not numbers"),
    ([1j, 1j, 1j], (), "not numbers"),
    (ROWS, (0.5,), r"shape \(2, 3\) for budgets 0\.5: .*shape \(1, 3\)"),
    (ROWS, (0.5, 0.7, 0.9), r"shape \(3, 3\)"),
    (ROWS[0], (0.5,), r"shape \(1, 3\)"),
    (ROWS, (0.5, 0.5), r"budgets 0\.5, 0\.5: expected .* different ones"),
    (ROWS, (0.5, 1.5), r"budget 1\.5 is not in \(0, 1\]"),
    (ROWS, (0.0, 0.5), r"budget 0 is not in \(0, 1\]"),
    (ROWS, (0.5, NAN), r"budget nan is not in \(0, 1\]"),
    (ROWS, "ab", "budget 'ab' is not a number"),
    (ROWS, (0.5, "0.7"), "budget '0.7' is not a number"),
  ],
)
def test_thresholds_that_do_not_fit_are_refused(network, thresholds, budgets, said):
  with pytest.raises(InputError, match=said):
    network.with_thresholds(thresholds, budgets)


def test_traced_thresholds_are_held_to_their_shape(network):
  def kept(*thresholds):
    return network.with_thresholds(thresholds).apply(PIXELS, "masked").kept

  assert jax.eval_shape(kept, 0.1, 0.2, 0.3).shape == (6, 3)
  with pytest.raises(InputError, match=r"thresholds of shape \(2,\)"):
    jax.eval_shape(kept, 0.1, 0.2)


def test_a_network_without_stages_has_no_thresholds():
  for thresholds in ([0.1], []):
    with pytest.raises(InputError, match="prunes nowhere: prune_before is empty"):
      tiny.network(ARCH.dense).with_thresholds(thresholds)


@pytest.mark.parametrize(
  ("thresholds", "budgets"),
  [
    ([0.1, 0.2, 0.3], ()),
    (np.float64([0.1, 0.2, 0.3]), None),
    (jnp.array([0.1, 0.2, 0.3]), []),
    ([-1, 0, 1], ()),
    (ROWS, (0.7, 0.5)),
    (ROWS, np.float32([0.5, 0.7])),
    (ROWS.tolist(), [0.5, np.float64(0.7)]),
    (ROWS[:1], (0.5,)),
  ],
)
def test_what_save_writes_of_any_thresholds_load_reads(tmp_path, network, thresholds, budgets):
  ours = network.with_thresholds(thresholds, budgets)
  ours.save(tmp_path / "w.safetensors")
  loaded = load(tmp_path / "w.safetensors")
  assert loaded == ours
  assert all(type(budget) is float for budget in ours.budgets)


@pytest.mark.parametrize(
  ("budget", "said"),
  [
    (NAN, "budget nan is not in"),
    ("0.5", "budget '0.5' is not a number"),
    (0, "budget 0 is not in"),
    (-1, "budget -1 is not in"),
    (1.2, "budget 1.2 is not in"),
    (INF, "budget inf is not in"),
    (10**400, "is not a number"),
    pytest.param(10**5000, "budget of type int is not a number", id="of 5000 digits"),
    (None, "budget None is not a number"),
    (True, "budget True is not a number"),
    (0.5j, "is not a number"),
    ({"a": 1}, "is not a number"),
    ({0.6, 0.8}, "is not a number"),
    ([[0.6, 0.8]], "is not a number"),
    ([[0.6, 0.8], [0.6]], "is not a number"),
    ([], "budgets : expected one or more"),
    ([0.6, 0.6], "budgets 0.6, 0.6: expected one or more different ones"),
    (["0.6"], "budget '0.6' is not a number"),
    ((0.6, NAN), "budget nan is not in"),
    (0.01, "cannot be met"),
  ],
)
def test_budgets_that_are_none_are_refused_before_images_run(network, budget, said):
  def never():
    raise AssertionError("images were asked for")
    yield

  with pytest.raises(InputError, match=said):
    network.calibrate(never(), budget)
  if not isinstance(budget, (list, tuple)):
    with pytest.raises(InputError, match=said):
      network.search(never(), budget)
    with pytest.raises(InputError, match="budget"):
      network.with_thresholds(ROWS, (0.5, 0.7)).at(budget)
    with pytest.raises(InputError, match="budget"):
      network.at(budget)


def test_numbers_of_any_library_are_budgets(network):
  expected = network.calibrate(PIXELS, 0.75).params["thresholds"]
  for budget in (jnp.float32(0.75), np.array([0.75])):
    np.testing.assert_array_equal(network.calibrate(PIXELS, budget).params["thresholds"], expected)
  dial = network.with_thresholds(ROWS, (0.5, 0.75))
  expected = dial.at(0.625).params["thresholds"]
  for budget in (np.float32(0.625), np.array(0.625), jnp.float32(0.625)):
    np.testing.assert_array_equal(dial.at(budget).params["thresholds"], expected)
  found = jax.jit(lambda b: dial.at(b).params["thresholds"])(0.625)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["trials", "seed"])
@pytest.mark.parametrize("value", [-1, 1.5, "a", None, True])
def test_trials_and_seeds_of_a_search_are_whole_numbers(network, name, value):
  with pytest.raises(InputError, match=f"{name} {value!r} of the search: expected a whole number"):
    network.search(PIXELS, 0.7, **{name: value})


def test_parameters_that_do_not_fit_are_refused(network):
  params = network.params
  token = params["cls_token"]
  for other, said in (
    ({k: v for k, v in params.items() if k != "head"}, "head.bias is missing"),
    (params | {"cls_token": jnp.zeros((1, 1, 13))}, r"cls_token is float32 of shape \(1, 1, 13\)"),
    (params | {"cls_token": token.astype(jnp.int8)}, "cls_token is int8 .*expected floats"),
    (params | {"cls_token": token.astype(jnp.complex64)}, "cls_token is complex64"),
    (params | {"cls_token": "a"}, "cls_token is of type str"),
    (params | {"cls_token": None}, "cls_token is of type NoneType"),
    (params | {"more": token}, "more is not known"),
    (params | {"\x1b[2J": token}, r"\\x1b\[2J is not known"),
    (params | {"thresholds": jnp.zeros(4)}, r"thresholds is float32 of shape \(4,\)"),
    (params | {"thresholds": jnp.zeros((2, 3))}, "thresholds"),
    ([token], "parameters are of type list"),
    (tiny.params(tiny.arch()), "and [0-9]+ more"),
  ):
    with pytest.raises(InputError, match=said):
      network.with_params(other)
    if all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(other)):
      with pytest.raises(InputError, match=said):  # nor as they are handed in at first
        Network(ARCH, other)(PIXELS)
  with pytest.raises(InputError, match="prunes nowhere"):
    tiny.network(ARCH.dense).with_params(params)


def test_parameters_that_fit_are_taken_of_any_kind(network):
  params = network.params
  for other in (jax.device_get(params), network.dense.params, None, {}):
    assert network.with_params(other).params is other
  shapes = jax.eval_shape(lambda: params)
  assert network.with_params(shapes).params is shapes
  rows = params | {"thresholds": jnp.asarray(ROWS, jnp.float32)}
  dial = network.with_thresholds(ROWS, (0.5, 0.7))
  assert dial.with_params(rows).params is rows


@pytest.mark.parametrize(
  ("classes", "said"),
  [
    ("abc", "classes are of type str"),
    ({0: "a", 1: "b", 2: "c"}, "classes are of type dict"),
    ({"a", "b", "c"}, "classes are of type set"),
    (3, "classes are of type int"),
    ([1, 2, 3], "the name of class 0 is 1: expected a text"),
    (("a", None, "c"), "the name of class 1 is None"),
    (("a", b"b", "c"), "the name of class 1 is b'b'"),
    pytest.param(
      ("a", 10**5000, "c"), "the name of class 1 is of type int: expected a text", id="digits"
    ),
  ],
)
def test_names_of_classes_are_texts(network, classes, said):
  with pytest.raises(InputError, match=said):
    dataclasses.replace(network, classes=classes)


@pytest.mark.parametrize(
  "kept",
  [
    [[1, 2]],
    [[1.0, NAN, 2.0]],
    [[1.0, INF, 2.0]],
    3,
    [["a", "b", "c"]],
    [[1, 2, 3], [1]],
    None,
    [[1j, 1j, 1j]],
    [[-1, 2, 3]],
    [[99999, 2, 3]],
    [[16.5, 2, 3]],
  ],
)
def test_counts_that_are_none_have_no_gmacs(network, kept):
  for gmacs in (network.gmacs, network.real_gmacs):
    with pytest.raises(InputError, match="patches kept are"):
      gmacs(kept)
  assert network.gmacs([[16, 16, 16]]) == network.gmacs(np.float32([[16, 16, 16]]))
  assert network.gmacs(np.zeros((0, 3))).shape == (0,)
  assert network.gmacs([[1, 5, 9]]).shape == (1,)  # as sums and means of images may be


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("preprocessing", {"mean": 1}),
    ("preprocessing", None),
    ("arch", None),
    ("arch", "deit_t"),
    ("variant", ["a"]),
    ("variant", None),
    ("dtype", "float16"),
    ("dtype", np.float64),
    ("dtype", None),
    ("dtype", ["a"]),
    pytest.param("dtype", 10**5000, id="dtype of 5000 digits"),
    ("budgets", 0.5),
    ("budgets", "ab"),
    ("budgets", {0.5: 1}),
    ("budgets", np.zeros((1, 1))),
  ],
)
def test_fields_of_another_kind_are_refused_in_a_line(network, field, value):
  with pytest.raises(InputError, match=f"the {field} of a network (is|are) ") as caught:
    dataclasses.replace(network, **{field: value})
  assert "\n" not in str(caught.value)
  assert len(str(caught.value)) < 500


def test_fields_of_the_right_kind_are_taken_and_trees_are_made_of_them(network):
  for dtype in ("bfloat16", jnp.bfloat16, jnp.dtype("bfloat16")):
    assert dataclasses.replace(network, dtype=dtype).dtype == "bfloat16"
  dial = network.with_thresholds(ROWS, (0.5, 0.7))
  for budgets in ([0.5, 0.7], np.array([0.5, 0.7]), iter((0.5, 0.7))):
    assert dataclasses.replace(dial, budgets=budgets) == dial
  assert jax.tree.map(lambda leaf: None, dial).params["thresholds"] is None
  assert jax.jit(lambda network: network)(dial) == dial
  assert jax.eval_shape(lambda network: network, dial).arch == dial.arch


def test_what_looks_at_values_says_so_inside_of_compiled_functions(network):
  for call in (
    lambda x: network.calibrate(x, 0.7),
    lambda x: network.search(x, 0.7, trials=0),
    network.calibrator,
    lambda x: network.calibrate(PIXELS, 0.7),
    lambda x: network.gmacs(x[0, 0]),
    lambda x: network.gmacs([[1, 2, 3]]),
  ):
    with pytest.raises(
      InputError, match=r"concrete values, which are not known inside jax\.jit"
    ) as caught:
      jax.jit(call)(PIXELS)
    assert "\n" not in str(caught.value)
  for images in (lambda x: x, lambda x: [{"image": x}], lambda x: iter([x])):
    with pytest.raises(InputError, match=r"images are traced"):
      jax.vmap(lambda x, images=images: network.calibrate(images(x), 0.7))(PIXELS[None])


@pytest.mark.parametrize("size", [2**20 + 1, 10**9, 10**30])
def test_batches_that_no_memory_holds_are_refused(network, size):
  with pytest.raises(InputError, match="expected at most 1,048,576 images in a batch"):
    network.warm_up([1, size])


def test_batches_that_this_memory_does_not_hold_are_refused(network, monkeypatch):
  def zeros(*args):
    raise MemoryError

  with monkeypatch.context() as patched:
    patched.setattr(np, "zeros", zeros)
    with pytest.raises(InputError, match="batch size 1,000: this machine has too little memory"):
      network.warm_up([1000])
