"""All contenders on the same images, one after the other."""

import dataclasses
import functools
import json
from typing import Any

from ml_collections import ConfigDict

from asvit_jax.comparison import accuracy, differences, records
from asvit_jax.comparison.contenders import Contender, Prunings, group_of, prepare
from asvit_jax.comparison.finetuning import finetune
from asvit_jax.comparison.speedups import Search
from asvit_jax.comparison.timing import Timer
from asvit_jax.core import storage
from asvit_jax.core.progress import log
from asvit_jax.data import loader, sources
from asvit_jax.network import Network
from asvit_jax.sparsity.calibration import MAX_IMAGES


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The contenders, data and settings of a comparison, for `run`.

  Attributes:
    network: the dense `Network` whose weights all contenders use.
    contenders: list of `Contender`, not calibrated, at the budgets to compare.
    config: a config.
    source: source of the images to evaluate on.
    train_source: source of the images to calibrate and to train on; None if not needed.
    out: directory for the measurements.
    searched: list of `Contender`, one per method, at any budget, to be compared at `speedups`.
    speedups: times the dense network's speed, each above 1.
  """

  network: Network
  contenders: list[Contender]
  config: ConfigDict
  source: Any
  train_source: Any
  out: str
  searched: tuple[Contender, ...] = ()
  speedups: tuple[float, ...] = ()

  def run(self, finetuned=False, rounds=0, speed_batch=32):
    """Measures what is not measured yet.

    Args:
      finetuned: whether contenders are also fine-tuned.
      rounds: number of times that each is timed; 0: not timed, which speed-ups need.
      speed_batch: number of images to time them on.

    Returns:
      Dictionary of `dense`, its measurement, and `results`, a list of those of contenders, see
      `accuracy` and `differences`, each with `method`, `budget`, `finetuned`, and what it keeps,
      `counts` or `thresholds`; where they are timed also `images_per_s`, `ms`, `spread_ms` and
      `speedup`, all of one budget or one asked speed-up in turn. Those of a speed-up have it as
      `asked_speedup`; and `missed` lists what could not be met, see `speedups.Search`.
    """
    dense = self._dense()
    results = {"dense": dense, "results": []}
    timer = Timer(self.network, self.config, self.source, speed_batch)
    found, missed = self._searched(timer, rounds, speed_batch)
    compared = [*self.contenders, *found]
    if self.speedups:
      results["missed"] = missed
      self._write(results)
    rows = []
    # After every row all are held against the best: what is known of a pair is not drawn again.
    above = functools.cache(lambda i, best: differences.above(rows[i], rows[best]))
    for contender in compared:
      for tuned in (False, True) if finetuned else (False,):
        rows.append(self._measured(contender, tuned))
        results["results"] = _compared(rows, above)
        self._write(results)
    if rounds:
      self._time(results, compared, timer, records.timing_settings(rounds, speed_batch))
      self._write(results)
    return results

  def example(self, results):
    """A contender that keeps another number of tokens in every image, calibrated, or None.

    Of those at the least budget, where the most is to be seen of what goes, that which is right
    most often without training.

    Args:
      results: what `run` returned.
    """
    known = {c.name: c for c in (*self.contenders, *self.searched) if c.method.adaptive}
    rows = [r for r in results["results"] if not r["finetuned"] and r["method"] in known]
    if not rows:
      return None
    best = min(rows, key=lambda row: (row["budget"], -row["top1"]))
    return self._calibrated(known[best["method"]].at(best["budget"]))

  def _dense(self):
    found = self._records.find("dense", self._settings)
    if found is not None:
      log(f"dense: measured before, top-1 {found['top1']:.1f}")
      return found
    result, _ = self._dense_measured
    self._records.add("dense", self._settings, result)
    return result

  def _measured(self, contender, tuned):
    """A line of `results`."""
    name = f"{contender.name}-{contender.budget:g}{'-finetuned' if tuned else ''}"
    settings = self._settings_of(contender, tuned)
    result = self._records.find(name, settings)
    before = result is not None
    if not before:
      dense_logits = self._dense_measured[1]
      contender = self._tuned(contender) if tuned else self._calibrated(contender)
      result = accuracy.measure(contender, self.config, self.source, dense_logits)
      result |= contender.describe()
      self._records.add(name, settings, result)
      if tuned and contender.method.adaptive:  # others have no thresholds that a file could carry
        contender.network.save(storage.path(self.out) / f"{name}.safetensors")
    log(
      f"{name}: {'measured before, ' if before else ''}top-1 {result['top1']:.1f} at "
      f"{result['share']:.3f} of the dense GMACs"
    )
    asked = contender.asked_speedup
    return {
      "method": contender.name,
      "budget": contender.budget,
      **({} if asked is None else {"asked_speedup": asked}),
      "finetuned": tuned,
      **result,
    }

  def _calibrated(self, contender):
    """It with its thresholds: those measured before, where they are."""
    if not contender.method.adaptive or contender.asked_speedup is not None:
      return contender
    name = f"{contender.name}-{contender.budget:g}"
    found = self._records.find(name, self._settings_of(contender, False))
    if found is not None:
      return contender.with_network(contender.network.with_thresholds(found["thresholds"]))
    return contender.calibrated(lambda: self._calibration_batches)

  def _tuned(self, contender):
    """It fine-tuned, and calibrated once more."""
    contender = self._calibrated(contender)
    contender = finetune(contender, self.network, self.config, self.train_source)
    return contender.calibrated(lambda: self._calibration_batches)

  def _searched(self, timer, rounds, speed_batch):
    """(contenders at the speed-ups that are asked for, dictionaries of what was not met)."""

    def settings(contender):
      timed = records.timing_settings(rounds, speed_batch)
      return self._settings_of(contender, False) | timed

    search = Search(timer, self._records, settings, lambda: self._calibration_batches, rounds)
    found, missed = [], []
    for contender in self.searched if self.speedups else ():
      for ours, those in zip((found, missed), search.run(contender, self.speedups), strict=True):
        ours += those
    place = self.speedups.index
    return (
      sorted(found, key=lambda contender: place(contender.asked_speedup)),
      sorted(missed, key=lambda one: place(one["asked_speedup"])),
    )

  def _time(self, results, compared, timer, timing):
    """Adds what was timed to the lines of contenders with the first weights.

    Args:
      results: of `run`.
      compared: list of `Contender`.
      timer: a `Timer`.
      timing: `records.timing_settings`.
    """
    for group in dict.fromkeys(contender.group for contender in compared):
      contenders = [c for c in compared if c.group == group]
      settings = self._settings | {
        "contenders": {c.name: self._settings_of(c, False) for c in contenders},
        **timing,
      }
      at = f"{group[1]:g}" if group[0] == "budget" else f"{group[1]:g}x"
      speed = self._records.find(f"speed-{at}", settings)
      if speed is None:
        contenders = [self._calibrated(contender) for contender in contenders]
        speed = timer.time(contenders, timing["rounds"])
        self._records.add(f"speed-{at}", settings, speed)
      else:
        log(f"speed at {at}: timed before")
      results["dense"] = speed["dense"] | results["dense"]
      results["results"] = [
        row | speed[row["method"]] if group_of(row) == group and not row["finetuned"] else row
        for row in results["results"]
      ]

  def _settings_of(self, contender, tuned):
    settings = self._settings
    settings = settings | records.contender_settings(contender, self.config.data.train_split)
    if tuned:
      settings |= records.recipe_settings(self.config, len(self.train_source))
    return settings

  def _write(self, results):
    storage.write(
      storage.path(self.out) / "results.json", json.dumps(results, indent=1), "the results"
    )

  @functools.cached_property
  def _settings(self):
    return records.base_settings(self.network, self.config, self.source)

  @functools.cached_property
  def _records(self):
    return records.Records(self.out)

  @functools.cached_property
  def _dense_measured(self):
    return accuracy.measure_dense(self.network, self.config, self.source)

  @functools.cached_property
  def _calibration_batches(self):
    """Of the images to train on, without labels; in memory, as thresholds read them often."""
    sample = sources.Sample(self.train_source, MAX_IMAGES)
    return list(loader.eval_batches(self.config, sample, self.network.preprocessing))


def _compared(rows, above):
  """The rows in their order, each held against that of the least mean divergence in its group.

  Args:
    rows: measurements; those of one budget, or of one asked speed-up, and of the same weights, as
      they are or fine-tuned, are a group.
    above: function of the places of a row and of the best; see `differences.above`.

  Returns:
    The rows without `each`, and with `kl_above_best`.
  """
  groups = {}
  for i, row in enumerate(rows):
    groups.setdefault((group_of(row), row["finetuned"]), []).append(i)
  best = {}
  for group in groups.values():
    best |= dict.fromkeys(group, min(group, key=lambda i: rows[i]["kl"]))
  return [
    {name: value for name, value in row.items() if name != "each"}
    | {"kl_above_best": above(i, best[i])}
    for i, row in enumerate(rows)
  ]


def searched(network, methods):
  """A `Contender` for every method, to look for budgets of: they are all of the dense GMACs yet.

  Args:
    network: a `Network`; thresholds of it are not read.
    methods: names of `METHODS`.

  Raises:
    InputError: no such method.
  """
  return contenders(network, methods, [1.0])


def contenders(network, methods, budgets):
  """A `Contender` for every method and budget.

  Args:
    network: a `Network`; thresholds of it are not read.
    methods: names of `METHODS`.
    budgets: shares of the dense GMACs.

  Raises:
    InputError: no such method, or a budget that one cannot meet.
  """
  prunings = Prunings.of(network)
  return [prepare(name, budget, network.dense, prunings) for budget in budgets for name in methods]
