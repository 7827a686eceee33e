"""One network for several budgets, from the flags of the commands."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from command_lines import run

from asvit_jax.core.errors import InputError
from asvit_jax.network import load

ARCH = tiny.TRAINED

pytestmark = pytest.mark.usefixtures("tiny_variant", "short_ladders")


@pytest.fixture(scope="module")
def options(dense_flags):
  """The config and the dense weights of a network that merges, as flags."""
  return dense_flags(**{"model.reduction": "merge"})


@pytest.fixture(scope="module")
def dial(options, place, tiny_variant, short_ladders):
  """(flags for weights that were calibrated for three budgets, the result of that)."""
  path = place / "dial.safetensors"
  given = ("--calibrate", "0.7,0.5,0.9", "--calibrate-split", "train", "--save-weights", path)
  return (*options[:2], "--weights", path), run("evaluate", *options, *given)


@pytest.mark.slow
def test_calibrating_for_several_evaluates_and_keeps_them_all(dial):
  flags, result = dial
  assert [point["budget"] for point in result["curve"]] == [0.7, 0.5, 0.9]
  assert {k: result[k] for k in result["curve"][0]} == result["curve"][0]
  assert result["execution"] == "packed"
  loaded = load(flags[-1])
  assert (loaded.budgets, loaded.arch.reduction) == ((0.7, 0.5, 0.9), "merge")
  json.dumps(result)


def test_budgets_were_set_on_the_split_asked_for(dial, options):
  _, result = dial
  on_train = run("evaluate", *dial[0], "--budget", 0.5, "--config.data.eval_split", "train")
  assert on_train["share"] == pytest.approx(0.5, abs=0.01)
  assert result["curve"][1]["share"] != on_train["share"]  # other images


def test_evaluate_takes_the_budgets_asked_for_or_the_first(dial):
  flags, result = dial
  first = run("evaluate", *flags)
  assert first["budget"] == 0.7
  assert first["share"] == result["share"]
  two = run("evaluate", *flags, "--budget", "0.55,0.8")
  assert [point["budget"] for point in two["curve"]] == [0.55, 0.8]
  assert two["curve"][0]["share"] < first["share"] < two["curve"][1]["share"]


def test_predict_and_export_take_one(dial, one_folder, tmp_path):
  flags, _ = dial
  image = next(one_folder.glob("val/*/*"))
  costs = [
    run("predict", *flags, "--budget", budget, image)["predictions"][0]["gmacs"]
    for budget in (0.5, 0.9)
  ]
  assert costs[0] < costs[1]
  out = tmp_path / "at_06.safetensors"
  note = run("export", *flags, "--budget", 0.6, "--format", "safetensors", "--out", out)
  assert note["budget"] == 0.6
  exported = load(out)
  assert exported.budgets == ()
  expected = load(flags[-1]).at(0.6).params["thresholds"]
  np.testing.assert_array_equal(exported.params["thresholds"], expected)


@pytest.mark.parametrize(
  ("command", "flags", "said"),
  [
    ("evaluate", ("--budget", "0.3"), r"budget 0\.3: the thresholds are for 0\.5 to 0\.9"),
    ("evaluate", ("--budget", "half"), "--budget 'half': expected shares"),
    ("evaluate", ("--budget", "0.5,0.5"), "every budget once"),
    ("evaluate", ("--calibrate", "0.5,x"), "--calibrate '0.5,x': expected shares"),
    ("evaluate", ("--calibrate", "0.5,1.5"), r"--calibrate 1\.5 is not in"),
    ("evaluate", ("--search", "3"), "give it a budget"),
    ("evaluate", ("--calibrate-split", "train"), "give it a budget"),
    ("evaluate", ("--budget", "0.5,0.6", "--per-image", "f"), "--per-image is for one budget"),
    ("predict", ("--budget", "0.5,0.6"), "expected one share"),
    ("predict", ("--budget", "0.95"), r"budget 0\.95: the thresholds are for"),
  ],
)
def test_what_cannot_be_is_refused(dial, one_folder, command, flags, said):
  images = (next(one_folder.glob("val/*/*")),) if command == "predict" else ()
  with pytest.raises(InputError, match=said):
    run(command, *dial[0], *flags, *images)


def test_a_network_of_one_budget_says_so(options, tmp_path):
  path = tmp_path / "one.safetensors"
  run("evaluate", *options, "--calibrate", 0.6, "--save-weights", path)
  with pytest.raises(InputError, match="only where it was calibrated for several"):
    run("evaluate", *options[:2], "--weights", path, "--budget", 0.6)


def test_a_search_is_seeded_and_reported_and_its_weights_are_kept(options, tmp_path):
  path = tmp_path / "found.safetensors"
  given = ("--calibrate", 0.6, "--search", 3, "--seed", 7, "--save-weights", path)
  result = run("evaluate", *options, *given)
  found = result["search"]
  assert (found["seed"], found["trials"], found["images"]) == (7, 3, 10)
  assert found["divergence"] <= found["divergence_before"]
  assert load(path).arch.stage_weights == tuple(found["stage_weights"])
  again = run("evaluate", *options[:2], "--weights", path)
  assert again["top1"] == result["top1"]
  assert again["share"] == result["share"]


@pytest.mark.slow
def test_predictions_are_held_against_the_dense_network_s(options, one_folder, tmp_path):
  path, lines = tmp_path / "pruned.safetensors", tmp_path / "lines.jsonl"
  given = ("--calibrate", "0.6", "--save-weights", path, "--compare-dense", "--per-image", lines)
  result = run("evaluate", *options, *given)
  network = load(path)
  images = network.read(one_folder / "val")
  ours, dense = (jax.nn.log_softmax(n(images).logits) for n in (network, network.dense))
  kl = np.asarray((jnp.exp(dense) * (dense - ours)).sum(axis=-1))
  same = np.asarray(ours.argmax(axis=-1) == dense.argmax(axis=-1))
  assert result["kl"] == pytest.approx(kl.mean(), rel=1e-3)
  assert result["kl_error"] == pytest.approx(kl.std(ddof=1) / len(kl) ** 0.5, rel=1e-3)
  assert result["agreement"] == pytest.approx(100 * same.mean())
  per_image = [json.loads(line) for line in lines.read_text().splitlines()]
  each = sorted(line["kl"] for line in per_image)
  np.testing.assert_allclose(each, np.sort(kl), rtol=1e-3, atol=1e-6)  # float32 logits
  assert sum(line["agrees"] for line in per_image) == same.sum()
  assert kl.min() > 1e-6
  dense = run("evaluate", *options[:2], "--weights", path, "--execution=dense", "--compare-dense")
  assert (dense["kl"], dense["agreement"]) == (pytest.approx(0, abs=1e-6), 100)
