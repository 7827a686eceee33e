"""Methods at equal measured time, on a clock that is known, and what they are timed on."""

import json

import numpy as np
import pytest
import tiny

from asvit_jax.comparison import timing
from asvit_jax.comparison.contenders import Prunings, contenders, prepare, searched
from asvit_jax.comparison.methods import METHODS
from asvit_jax.comparison.running import Comparison, markdown
from asvit_jax.comparison.speedups import least_budget
from asvit_jax.core.errors import InputError
from asvit_jax.data import sources
from asvit_jax.network import Network

pytestmark = pytest.mark.usefixtures("tiny_variant", "short_ladders")


class Clock:
  """In place of `Timer`: time as a share of dense is an overhead and the contender's GMACs."""

  def __init__(self, overhead):
    self.overhead, self.timed = overhead, []

  def __call__(self, timer, contenders, rounds):
    del timer
    self.timed.append([contender.title for contender in contenders])
    speeds = {"dense": 1.0}
    for contender in contenders:
      cost = contender.gmacs(self.kept(contender))[0].mean()
      share = cost / contender.network.dense_gmacs
      speeds[contender.name] = 1 / (self.overhead.get(contender.name, 0.0) + share)
    return {
      name: {"ms": rounds / speed, "spread_ms": 0.0, "images_per_s": speed, "speedup": speed}
      for name, speed in speeds.items()
    }

  def kept(self, contender):
    if not contender.method.adaptive:
      return None
    return np.asarray(contender.network(self.images, "masked").kept)


def at_speedups(network, data, out, names, speedups, budgets=()):
  plan = tiny.plan_of(data)
  source, train_source = (sources.open_source(plan.data, split) for split in ("val", "train"))
  opened = plan, source, train_source, out
  compared = contenders(network, names, budgets)
  return Comparison(network, compared, *opened, searched(network, names), speedups)


@pytest.fixture
def clock(network, data, monkeypatch):
  plan = tiny.plan_of(data)
  clock = Clock({"merge": 0.2, "tome": 0.05})
  clock.images = tiny.all_of(plan, sources.open_source(plan.data, "train"), network)[0]
  monkeypatch.setattr(timing.Timer, "time", lambda *given: clock(*given))
  return clock


@pytest.mark.slow
def test_at_a_speed_up_every_method_takes_the_same_time(network, data, tmp_path, clock):
  """Each by its own budget, in few timings; what no budget reaches is said."""
  calibrators = []
  make = Network.calibrator
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(Network, "calibrator", lambda *a: calibrators.append(1) or make(*a))
    ours = at_speedups(network, data, tmp_path, ["merge", "random"], (1.6, 1.3, 2.6))
    results = ours.run(rounds=5, speed_batch=3)
  assert len(calibrators) == 1  # for all budgets that were tried
  rows = results["results"]
  assert [(r["method"], r["asked_speedup"]) for r in rows] == [
    *(("merge", 1.6), ("random", 1.6), ("merge", 1.3), ("random", 1.3), ("random", 2.6)),
  ]
  for row in rows:
    missed = [one for one in results["missed"] if one["method"] == row["method"]]
    if row["asked_speedup"] not in [one["asked_speedup"] for one in missed]:
      assert row["speedup"] == pytest.approx(row["asked_speedup"], rel=0.02)
    assert row["ms"] == pytest.approx(5 / row["speedup"])
    low = row["kl_above_best"]
    assert low[1] <= low[0] <= low[2]
  # The slower method has to do with less of the GMACs.
  budgets = {(r["method"], r["asked_speedup"]): r["budget"] for r in rows}
  assert budgets["merge", 1.3] < budgets["random", 1.3] - 0.1
  assert budgets["merge", 1.6] < budgets["merge", 1.3]
  (slow,) = [one for one in results["missed"] if not one["compared"]]
  assert (slow["method"], slow["asked_speedup"]) == ("merge", 2.6)
  assert 1.6 < slow["nearest_speedup"] < 2.6
  at_most = f"at most {slow['nearest_speedup']:.2f}"
  assert slow["said"].startswith(f"merge cannot reach 2.6: {at_most}, at 0.")
  assert json.loads((tmp_path / "results.json").read_text()) == results
  table = markdown(results)
  header, _, dense, first = table.splitlines()[:4]
  assert header.startswith("| method | asked × dense | budget | top-1 |")
  assert dense.startswith("| dense |  |  | ")
  assert first.startswith(f"| merge | 1.6 | {rows[0]['budget']:g} | ")
  assert f"\n- {slow['said']}\n" in table
  assert "at that budget or asked speed-up, on" in table
  # Groups are the asked speed-ups, whatever budgets they came to; the final timing is in turn.
  least = {s: min(r["kl"] for r in rows if r["asked_speedup"] == s) for s in (1.6, 1.3, 2.6)}
  for row in rows:
    is_best = row["kl"] == least[row["asked_speedup"]]
    assert (row["kl_above_best"] == [0, 0, 0]) == is_best
  assert [len(titles) for titles in clock.timed[-3:]] == [2, 2, 1]
  shown = ours.example(results)
  assert shown.name == "merge"
  assert shown.budget == budgets["merge", 1.6]
  merged = next(r for r in rows if r["method"] == "merge")
  np.testing.assert_allclose(shown.network.params["thresholds"], merged["thresholds"], rtol=1e-6)


@pytest.mark.slow
def test_a_search_that_was_interrupted_goes_on(network, data, tmp_path, clock, capsys):
  names, speedups = ["merge", "random"], (1.3, 1.6)
  expected = at_speedups(network, data, tmp_path / "at once", names, speedups).run(rounds=3)
  timings = len(clock.timed)
  time, clock.timed = clock.__class__.__call__, []

  def interrupted(*given):
    if len(clock.timed) == 3:
      raise KeyboardInterrupt
    return time(clock, *given)

  with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
    patched.setattr(timing.Timer, "time", interrupted)
    at_speedups(network, data, tmp_path / "out", names, speedups).run(rounds=3)
  again = at_speedups(network, data, tmp_path / "out", names, speedups)
  assert again.run(rounds=3) == expected
  assert len(clock.timed) == timings  # three before, the others after, none twice
  assert at_speedups(network, data, tmp_path / "out", names, speedups).run(rounds=3) == expected
  assert len(clock.timed) == timings
  at_speedups(network, data, tmp_path / "out", names, speedups).run(rounds=4)
  assert len(clock.timed) == 2 * timings  # of other rounds nothing is known


@pytest.mark.slow
def test_budgets_and_speed_ups_stand_beside_each_other(network, data, tmp_path, clock):
  ours = at_speedups(network, data, tmp_path, ["tome", "random"], (1.4,), [0.7])
  results = ours.run(rounds=3)
  rows = results["results"]
  found = [(r["method"], r.get("asked_speedup")) for r in rows]
  assert found == [("tome", None), ("random", None), ("tome", 1.4), ("random", 1.4)]
  assert all(r["budget"] == 0.7 for r in rows[:2])
  assert all("speedup" in r for r in rows)
  only = at_speedups(network, data, tmp_path / "only", ["tome", "random"], (), [0.7])
  assert only.run(rounds=3)["results"] == rows[:2]


def test_a_batch_to_time_on_is_as_dear_as_the_images(network, data):
  """And not the easy ones: its costs are spread as those of all are."""
  rng = np.random.default_rng(0)
  costs = np.sort(np.exp(rng.standard_normal(300)))[rng.permutation(300)]
  chosen = timing.representative(costs, 32)
  assert len(set(chosen.tolist())) == 32
  assert (np.diff(chosen) > 0).all()
  assert costs[chosen].mean() == pytest.approx(costs.mean(), rel=0.03)
  assert costs[chosen].std() == pytest.approx(costs.std(), rel=0.2)
  few = timing.representative(costs[:3], 7)
  assert set(few.tolist()) == {0, 1, 2}

  plan = tiny.plan_of(data)
  source = sources.open_source(plan.data, "train")
  images, _ = tiny.all_of(plan, source, network)
  merge = prepare("merge", 0.6, network, Prunings.of(network))
  merge = merge.calibrated(lambda: [{"image": images}])
  timer = timing.Timer(network, plan, source, 6)
  batch = timer._images_for(merge)
  costs = merge.network.gmacs(np.asarray(merge.network(images, "masked").kept))
  of_batch = merge.network.gmacs(np.asarray(merge.network(batch, "masked").kept))
  assert of_batch.mean() == pytest.approx(costs.mean(), rel=0.05)
  assert costs.std() > 0
  evenly = prepare("random", 0.6, network, Prunings.of(network))
  np.testing.assert_array_equal(
    timer._images_for(evenly), timing.batch_of(plan, source, network.preprocessing, 6)
  )


@pytest.mark.slow
def test_what_is_compiled_for_one_timing_serves_the_next(network, data):
  plan = tiny.plan_of(data)
  source = sources.open_source(plan.data, "val")
  timer = timing.Timer(network, plan, source, 4)
  merge = prepare("merge", 0.6, network, Prunings.of(network))
  random = prepare("random", 0.6, network, Prunings.of(network))
  timed = timer.time([merge, random], 2)
  assert set(timed) == {"dense", "merge", "random"}
  assert timed["dense"]["speedup"] == 1.0
  compiled = len(timer._programs)
  timer.time([merge.at(0.8)], 1)  # thresholds are arguments
  assert len(timer._programs) == compiled == 3
  timer.time([random.at(0.8)], 1)  # counts are not
  assert len(timer._programs) == 4


@pytest.mark.parametrize("name", METHODS.names)
def test_the_least_budget_of_a_method_is_the_least_that_it_takes(network, name):
  (contender,) = searched(network, [name])
  least = least_budget(contender)
  assert contender.at(least).budget == least == round(least, 4)
  with pytest.raises(InputError, match="cannot be met"):
    contender.at(least - 1e-4)
