"""What a comparison measures, and that it goes on where it was interrupted."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny

from asvit_jax import config as config_lib
from asvit_jax import vit
from asvit_jax.comparison import accuracy, records
from asvit_jax.comparison.contenders import Prunings, contenders, prepare
from asvit_jax.comparison.finetuning import finetune
from asvit_jax.comparison.methods import METHODS
from asvit_jax.comparison.running import Comparison, markdown
from asvit_jax.config import options
from asvit_jax.core.errors import DivergedError, InputError
from asvit_jax.data import sources
from asvit_jax.evaluation import divergence
from asvit_jax.losses import terms
from asvit_jax.network import Network, load

pytestmark = pytest.mark.usefixtures("tiny_variant", "short_ladders")

NAMES = ["merge", "tome", "evit"]


def comparison(network, data, out, names=NAMES, **changes):
  plan = tiny.plan_of(data, **changes)
  source, train_source = (sources.open_source(plan.data, split) for split in ("val", "train"))
  compared = contenders(network, names, [0.7])
  return Comparison(network, compared, plan, source, train_source, out)


@pytest.fixture(scope="module")
def measured(network, data, tmp_path_factory):
  """(comparison, its results) without training."""
  with pytest.MonkeyPatch.context() as patched:
    patched.setitem(vit.VARIANTS, "tiny", tiny.TRAINED)
    ours = comparison(network, data, tmp_path_factory.mktemp("out"))
    return ours, ours.run()


def test_it_measures_every_method_on_the_same_images(measured, network):
  ours, results = measured
  images, labels = tiny.all_of(ours.plan, ours.source, network)
  calibration, _ = tiny.all_of(ours.plan, ours.train_source, network)
  dense_logits, divergences = np.asarray(network(images).logits), {}
  dense = dense_logits.argmax(axis=-1)
  assert results["dense"]["top1"] == pytest.approx(100 * (dense == labels).mean())
  assert results["dense"]["images"] == len(images) == 10
  assert [row["method"] for row in results["results"]] == NAMES
  for contender, row in zip(ours.contenders, results["results"], strict=True):
    run = contender.network
    if contender.method.adaptive:
      run = run.calibrate(calibration, 0.7)  # thresholds are of the images to train on
      np.testing.assert_allclose(row["thresholds"], run.params["thresholds"], rtol=1e-5)
      kept = np.asarray(run(images).kept)
      np.testing.assert_allclose(row["kept"], kept.mean(axis=0))
      assert row["gmacs"] == pytest.approx(run.gmacs(kept).mean())
      assert row["real_gmacs"] == pytest.approx(run.real_gmacs(kept).mean())
    else:
      counts = np.array(row["counts"])
      assert row["gmacs"] == pytest.approx(contender.method.cost(run.arch, counts))
      assert row["real_gmacs"] == pytest.approx(contender.method.cost(run.arch, counts, real=True))
    logits = np.asarray(jax.jit(contender.execution())(run, images).logits)
    predicted, kl = logits.argmax(axis=-1), terms.divergence(logits, dense_logits)
    assert row["kl"] == pytest.approx(float(kl.mean()), rel=1e-3)
    assert row["kl_error"] == pytest.approx(float(np.std(kl, ddof=1)) / 10**0.5, rel=1e-3)
    divergences[row["method"]] = kl
    assert row["top1"] == pytest.approx(100 * (predicted == labels).mean())
    assert row["agreement"] == pytest.approx(100 * (predicted == dense).mean())
    assert row["share"] == pytest.approx(row["gmacs"] / network.dense_gmacs)
    assert row["share"] == pytest.approx(0.7, abs=0.06)
    assert row["real_share"] == pytest.approx(row["real_gmacs"] / results["dense"]["real_gmacs"])
  assert json.loads((ours.out / "results.json").read_text()) == results
  best = min(results["results"], key=lambda row: row["kl"])
  assert best["kl_above_best"] == [0, 0, 0]
  for row in results["results"]:
    mean, low, high = row["kl_above_best"]
    assert low <= mean <= high and "each" not in row
    above = float((divergences[row["method"]] - divergences[best["method"]]).mean())
    assert mean == pytest.approx(above, abs=1e-4)


def test_an_interrupted_comparison_goes_on(measured, network, data, tmp_path, monkeypatch, capsys):
  _, expected = measured
  measure, seen = accuracy.measure, []

  def interrupted(contender, *rest):
    if len(seen) == 2:
      raise KeyboardInterrupt
    seen.append(contender.name)
    return measure(contender, *rest)

  monkeypatch.setattr(accuracy, "measure", interrupted)
  with pytest.raises(KeyboardInterrupt):
    comparison(network, data, tmp_path).run()
  assert seen == ["merge", "tome"]
  assert len(json.loads((tmp_path / "results.json").read_text())["results"]) == 2

  after = []

  def noted(contender, *rest):
    after.append(contender.name)
    return measure(contender, *rest)

  monkeypatch.setattr(accuracy, "measure", noted)
  capsys.readouterr()
  assert comparison(network, data, tmp_path).run() == expected
  assert after == ["evit"]
  assert "tome-0.7: measured before" in capsys.readouterr().err
  assert comparison(network, data, tmp_path).run() == expected
  assert after == ["evit"]


def test_other_settings_are_measured_anew(measured, network, data, monkeypatch):
  ours, expected = measured
  seen = []

  def noted(contender, *rest):
    seen.append(contender.name)
    return {"top1": 0.0, "share": 0.0, "kl": 0.0, "each": {"kl": [0.0]}}

  monkeypatch.setattr(accuracy, "measure", noted)
  other = network.with_params(jax.tree.map(lambda x: x * 1.01, network.params))
  comparison(other, data, ours.out, ["tome"]).run()
  comparison(network, data, ours.out, ["tome"], **{"data.crop_ratio": 0.9}).run()
  comparison(network, data, ours.out, ["tome"], **{"data.eval_split": "train"}).run()
  assert seen == ["tome"] * 3
  # What does not decide the result does not count, and nothing was overwritten.
  again = comparison(network, data, ours.out, **{"eval.batch_size": 5, "epochs": 3.0}).run()
  assert again == expected
  assert seen == ["tome"] * 3


def test_what_was_measured_while_a_second_token_could_go_is_measured_anew(network):
  """Not what was measured of networks with a class token alone: that holds."""
  dense = tiny.network(dataclasses.replace(tiny.TRAINED, dist_token=True), variant="tiny").dense
  for name in ("tome", "random"):
    one, two = (contenders(of, [name], [0.7])[0] for of in (network, dense))
    assert records.contender_settings(one).keys() == {"budget", "architecture", "counts"}
    assert records.contender_settings(two)["tokens_that_stay"] == 2


def test_a_measurement_made_before_a_score_moved_is_found(network, tmp_path):
  (contender,) = contenders(network, ["dynamicvit"], [0.7])
  settings = records.contender_settings(contender)
  named = settings["architecture"] | {"score": "asvit_jax.comparison.mean_attention:mean_attention"}
  records.Records(tmp_path).add("dynamicvit", settings | {"architecture": named}, {"top1": 50.0})
  assert contender.network.arch.score != named["score"]
  assert records.Records(tmp_path).find("dynamicvit", settings) == {"top1": 50.0}


def test_of_every_two_methods_intervals_are_drawn_once(network, data, tmp_path, monkeypatch):
  """And what is said is what the whole table says at once, of the least at the end."""
  kl = {"random": [0.4, 0.2], "drop": [0.3, 0.2], "top_k": [0.5, 0.5], "merge": [0.1, 0.2]}
  ours = comparison(network, data, tmp_path)
  ours = dataclasses.replace(ours, contenders=contenders(network, list(kl), [0.7, 0.8]))
  rows = {
    name: {"top1": 0.0, "share": 0.0, "kl": sum(of) / 2, "each": {"kl": of}}
    for name, of in kl.items()
  }
  monkeypatch.setattr(accuracy, "measure_dense", lambda *_: ({"top1": 0.0}, None))
  monkeypatch.setattr(accuracy, "measure", lambda contender, *_: rows[contender.name])
  monkeypatch.setattr(Comparison, "_calibrated", lambda self, contender: contender)
  drawn = []
  draw = divergence.paired_interval
  monkeypatch.setattr(
    divergence, "paired_interval", lambda *pair: drawn.append(pair) or draw(*pair)
  )
  found = ours.run()["results"]
  best = {name: draw(of, kl["merge"]) for name, of in kl.items()}
  assert [tuple(row["kl_above_best"]) for row in found] == [best[row["method"]] for row in found]
  pairs = [
    ("random", "drop"),
    ("top_k", "drop"),
    ("random", "merge"),
    ("drop", "merge"),
    ("top_k", "merge"),
  ]
  assert len(drawn) == 2 * len(pairs)
  assert all(drawn.count((kl[one], kl[other])) == 2 for one, other in pairs)  # at two budgets


@pytest.mark.parametrize("best", ["drop", "merge"])
def test_images_are_shown_of_what_is_right_most_often_at_the_least_budget(
  network, data, tmp_path, monkeypatch, best
):
  compared = contenders(network, ["random", "drop", "merge"], [0.7, 0.6])
  ours = Comparison(network, compared, tiny.plan_of(data), None, None, tmp_path)
  monkeypatch.setattr(Comparison, "_calibrated", lambda self, contender: contender)
  right = {("random", 0.6): 99.0, (best, 0.6): 50.0, ("drop", 0.7): 80.0, ("merge", 0.7): 80.0}
  rows = [{"method": c.name, "budget": c.budget, "finetuned": False} for c in compared]
  rows = [row | {"top1": right.get((row["method"], row["budget"]), 10.0)} for row in rows]
  trained = [row | {"finetuned": True, "top1": 100.0 - row["top1"]} for row in rows]
  shown = ours.example({"results": [*rows, *trained]})
  assert (shown.name, shown.budget) == (best, 0.6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["merge", "evit"])
def test_fine_tuning_brings_a_method_nearer_to_the_dense_network(network, data, name):
  plan = tiny.plan_of(data, total_steps=12, **{"data.crop_scale": (1.0, 1.0)})
  source = sources.open_source(plan.data, "train")
  images, _ = tiny.all_of(plan, source, network)
  first = prepare(name, 0.6, network, Prunings.of(network)).calibrated(lambda: [{"image": images}])
  wanted = np.asarray(network(images).logits)

  def distance(contender):
    outputs = jax.jit(contender.execution())(contender.network, images)
    return float(terms.divergence(outputs.logits, wanted).mean())

  tuned = finetune(first, network, plan, source)
  assert distance(tuned) < 0.8 * distance(first)
  same = finetune(first, network, plan, source)
  jax.tree.map(np.testing.assert_array_equal, tuned.network.params, same.network.params)
  other = finetune(first, network, tiny.plan_of(data, total_steps=12, seed=1), source)
  assert any(
    jax.tree.leaves(
      jax.tree.map(lambda a, b: (a != b).any(), *(c.network.dense.params for c in (tuned, other)))
    )
  )
  np.testing.assert_array_equal(
    tuned.network.params["thresholds"], first.network.params["thresholds"]
  )


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_fine_tuning(network, data):
  plan = tiny.plan_of(data, total_steps=3, **{"optimizer.lr": 1e30})
  first = prepare("tome", 0.6, network, Prunings.of(network))
  with pytest.raises(DivergedError, match=r"fine-tuning tome at 0\.6: the loss is nan at step"):
    finetune(first, network, plan, sources.open_source(plan.data, "train"))


@pytest.mark.slow
def test_fine_tuned_lines_and_speed_stand_beside_the_others(network, data, tmp_path, capsys):
  ours = comparison(network, data, tmp_path, ["merge", "random"])
  results = ours.run(finetuned=True, rounds=2, speed_batch=12)  # of ten images
  lines = [(row["method"], row["finetuned"]) for row in results["results"]]
  assert lines == [("merge", False), ("merge", True), ("random", False), ("random", True)]
  for row in results["results"]:
    assert ("images_per_s" in row) == (not row["finetuned"])
  timed = [results["dense"], *(row for row in results["results"] if not row["finetuned"])]
  assert all(row["images_per_s"] == pytest.approx(12e3 / row["ms"]) for row in timed)
  # Thresholds follow the weights: calibrated again, it meets its budget on the same images.
  tuned = load(tmp_path / "merge-0.7-finetuned.safetensors")
  before, after = (row["thresholds"] for row in results["results"][:2])
  assert before != after
  np.testing.assert_allclose(tuned.params["thresholds"], after, rtol=1e-6)
  images, _ = tiny.all_of(ours.plan, ours.train_source, network)
  cost = tuned.gmacs(np.asarray(tuned(images).kept)).mean()
  assert cost / network.dense_gmacs == pytest.approx(0.7, abs=0.01)

  capsys.readouterr()
  again = comparison(network, data, tmp_path, ["merge", "random"])
  assert again.run(finetuned=True, rounds=2, speed_batch=12) == results
  said = capsys.readouterr().err
  assert "speed at 0.7: timed before" in said
  assert "fine-tuning" not in said

  rows = [line.split(" | ") for line in markdown(results).splitlines() if line.startswith("|")]
  assert [row[0] for row in rows[2:]] == ["| dense", *["| merge"] * 2, *["| random"] * 2]
  assert len({len(row) for row in rows}) == 1
  header = rows[0]
  assert header.index("weights") == 2
  assert rows[4][2] == "fine-tuned"
  assert rows[3][header.index("top-1")].startswith(f"{results['results'][0]['top1']:.1f} ± ")
  assert header[-1] == "× dense |"
  assert rows[3][-1] == f"{results['results'][0]['speedup']:.2f} |"
  assert rows[3][header.index("share")] == f"{results['results'][0]['share']:.3f}"


def test_merging_is_the_network_s_own_or_the_recipe_s(network):
  deit = tiny.network(tiny.TRAINED, variant="tiny")
  own = Prunings.of(network)
  assert own.merging == network.arch
  assert (own.paper.reduction, own.paper.score) == ("drop", "class_attention")
  assert own.paper.prune_before == tiny.TRAINED.prune_before
  shallow = Prunings.of(deit).merging
  stages = tuple(range(1, tiny.TRAINED.depth))
  assert (shallow.reduction, shallow.prune_before) == ("merge_tokens", stages)
  assert shallow.stage_weights == ()  # they follow the budget


def test_a_variant_with_too_few_blocks_for_its_stages_has_those_of_its_depth():
  arch = dataclasses.replace(vit.VARIANTS["deit_t"], depth=4, prune_before=(2,))
  paper, merging = Prunings.of(Network(arch, {}, variant="deit_t"))
  assert paper.prune_before == (1, 2, 3)
  assert max(merging.prune_before) < 4


COSTS = {
  "reduction": "merge_tokens",
  "score": "merge_cost",
  "score_exponents": (0.5, 1.0, 0.5, 0.5),
  "prune_inside": True,
  "stage_weights": (0.5, 1.0, 1.5),
}


def test_whatever_merges_is_the_network_s_own_and_nothing_of_it_reaches_other_methods(network):
  """Its score, exponents and stages inside of blocks are those of its two methods alone."""
  arch = dataclasses.replace(tiny.TRAINED, **COSTS)
  own = Prunings.of(tiny.network(arch, variant="tiny"))
  assert own.merging == arch
  assert own.paper == tiny.TRAINED
  for contender in contenders(tiny.network(arch, variant="tiny"), METHODS.names, [0.8]):
    said = {key: getattr(contender.network.arch, key) for key in COSTS}
    if contender.name in ("merge", "merge_fixed"):
      assert said == COSTS
    else:
      paper = {key: getattr(tiny.TRAINED, key) for key in COSTS} | {"score": said["score"]}
      assert said == paper
      assert said["score"] != "merge_cost"


def test_a_network_that_drops_inside_of_blocks_merges_as_the_recipes_do():
  arch = dataclasses.replace(tiny.TRAINED, prune_inside=True)
  paper, merging = Prunings.of(tiny.network(arch, variant="tiny"))
  assert not paper.prune_inside
  recipe = options.merging(arch.depth)
  assert {name: getattr(merging, name) for name in recipe} == recipe


@pytest.mark.parametrize("variant", ["deit_s", "lvvit_m"])
def test_a_recipe_s_stages_are_for_the_depth_of_its_variant(variant):
  arch = vit.VARIANTS[variant]
  config = config_lib.base()
  config.model.variant = variant
  options.apply(config, "dense,merge")
  merging = Prunings.of(Network(arch, {}, variant=variant)).merging
  assert len(merging.prune_before) == 5
  assert np.ptp(np.diff((*merging.prune_before, arch.depth))) <= 1  # evenly, to the end
  for key in options.merging(arch.depth):
    assert getattr(merging, key) == config.model[key], key


def test_a_recipe_of_an_unknown_variant_cannot_say_where_it_merges():
  config = config_lib.base()
  config.model.variant = "mine"
  with pytest.raises(InputError, match=r"model\.variant 'mine' is not known: choose from"):
    options.apply(config, "dense,merge")


def test_what_is_no_method_is_refused(network):
  with pytest.raises(InputError, match="--methods 'tom' is not known: choose from drop, merge"):
    contenders(network, ["tom"], [0.5])
  with pytest.raises(InputError, match="is not a method, it has no adaptive and no architecture"):
    contenders(network, ["tiny:images"], [0.5])
  METHODS.check("asvit_jax.comparison.methods.tome:tome")
