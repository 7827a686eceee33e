"""A comparison: measures all contenders on the same images, and tabulates the results."""

import dataclasses
import functools
import json
from typing import Any

from asvit_jax.comparison import accuracy, records
from asvit_jax.comparison.contenders import Contender, group_of
from asvit_jax.comparison.finetuning import finetune
from asvit_jax.comparison.speedups import Search
from asvit_jax.comparison.timing import Timer
from asvit_jax.config.plan import Plan
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
    plan: a `Plan`.
    source: source of the images to evaluate on.
    train_source: source of the images to calibrate and to train on; None if not needed.
    out: directory for the measurements.
    searched: list of `Contender`, one per method, at any budget, to compare at the `speedups`.
    speedups: times the dense network's speed, each above 1.
  """

  network: Network
  contenders: list[Contender]
  plan: Plan
  source: Any
  train_source: Any
  out: str
  searched: tuple[Contender, ...] = ()
  speedups: tuple[float, ...] = ()

  def run(self, finetuned=False, rounds=0, speed_batch=32):
    """Measures everything that has not been measured yet.

    Args:
      finetuned: whether to measure the contenders fine-tuned, too.
      rounds: number of times that each is timed; 0 times nothing, and excludes speed-ups.
      speed_batch: number of images to time them on.

    Returns:
      Dictionary of `dense`, the measurement of the dense network; `results`, a list of the
      measurements of contenders; and `missed`, if there are speed-ups, a list of those that were
      not met, see `speedups.Search`. A measurement of a contender is that of `accuracy.measure`
      without `each`, with `method`, `budget`, `finetuned`, `counts` or `thresholds`,
      `kl_above_best`, see `accuracy.kl_above_best`, and, for a searched budget, `asked_speedup`. If
      they are timed, those without fine-tuning also have `images_per_s`, `ms`, `spread_ms` and
      `speedup`: contenders at the same budget, or for the same speed-up, are timed in turn.
    """
    self.network.arch.check_classifies("comparison of")
    dense = self._dense()
    results = {"dense": dense, "results": []}
    timer = Timer(self.network, self.plan, self.source, speed_batch)
    found, missed = self._searched(timer, rounds, speed_batch)
    compared = [*self.contenders, *found]
    if self.speedups:
      results["missed"] = missed
      self._write(results)
    rows = []
    # All rows are compared with the best again after every new one: cached, a pair is drawn once.
    above = functools.cache(lambda i, best: accuracy.kl_above_best(rows[i], rows[best]))
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
    """The contender to show pictures of: adaptive and calibrated; None if none is adaptive.

    It is the most accurate without fine-tuning at the least budget, which removes most tokens.

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
    """The measurement of a contender, with `each`: a row of `results`."""
    name = f"{contender.name}-{contender.budget:g}{'-finetuned' if tuned else ''}"
    settings = self._settings_of(contender, tuned)
    result = self._records.find(name, settings)
    before = result is not None
    if not before:
      dense_logits = self._dense_measured[1]
      contender = self._tuned(contender) if tuned else self._calibrated(contender)
      result = accuracy.measure(contender, self.plan, self.source, dense_logits)
      result |= contender.describe()
      self._records.add(name, settings, result)
      if tuned and contender.method.adaptive:  # a file has no place for the counts of the others
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
    """The contender with its thresholds, from an earlier measurement if there is one."""
    if not contender.method.adaptive or contender.asked_speedup is not None:
      return contender
    name = f"{contender.name}-{contender.budget:g}"
    found = self._records.find(name, self._settings_of(contender, False))
    if found is not None:
      return contender.with_network(contender.network.with_thresholds(found["thresholds"]))
    return contender.calibrated(lambda: self._calibration_batches)

  def _tuned(self, contender):
    """The contender fine-tuned, and calibrated again."""
    contender = self._calibrated(contender)
    contender = finetune(contender, self.network, self.plan, self.train_source)
    return contender.calibrated(lambda: self._calibration_batches)

  def _searched(self, timer, rounds, speed_batch):
    """(contenders at the asked speed-ups, dictionaries of the speed-ups that were not met)."""

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
    """Times the contenders, and adds this to their rows without fine-tuning.

    Args:
      results: the dictionary that `run` returns; `dense` and `results` are replaced.
      compared: list of `Contender`.
      timer: a `Timer`.
      timing: dictionary of `records.timing_settings`.
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
    settings = settings | records.contender_settings(contender, self.plan.data.train_split)
    if tuned:
      settings |= records.recipe_settings(self.plan, len(self.train_source))
    return settings

  def _write(self, results):
    storage.write(
      storage.path(self.out) / "results.json", json.dumps(results, indent=1), "the results"
    )

  @functools.cached_property
  def _settings(self):
    return records.base_settings(self.network, self.plan, self.source)

  @functools.cached_property
  def _records(self):
    return records.Records(self.out)

  @functools.cached_property
  def _dense_measured(self):
    return accuracy.measure_dense(self.network, self.plan, self.source)

  @functools.cached_property
  def _calibration_batches(self):
    """Batches of training images, a list, as calibration reads them several times."""
    sample = sources.Sample(self.train_source, MAX_IMAGES)
    return list(loader.eval_batches(self.plan, sample, self.network.preprocessing))


def _compared(rows, above):
  """The rows, in order, each compared with the row of least mean divergence in its group.

  A group is the rows at one budget, or for one asked speed-up, either fine-tuned or not.

  Args:
    rows: list of measurements, with `each`.
    above: function of the indices of a row and of the best row, see `accuracy.kl_above_best`.

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


def markdown(results):
  """The results as a Markdown table, one row per measurement, with an explanation of its columns.

  Args:
    results: dictionary that `Comparison.run` returned.
  """
  rows = [results["dense"] | {"method": "dense"}, *results["results"]]
  timed = any("images_per_s" in row for row in rows)
  tuned = any(row.get("finetuned") for row in rows)
  asked = any("asked_speedup" in row for row in rows)
  header = ["method", *(["asked × dense"] if asked else []), "budget"]
  header += [*(["weights"] if tuned else []), "top-1", "agreement"]
  header += ["KL", "above the least KL", "GMACs", "share", "real GMACs", "real share"]
  header += ["images/s", "× dense"] if timed else []
  lines = [_line(header), _line(["---"] * len(header))]
  lines += [_line(_cells(row, asked, tuned, timed)) for row in rows]
  lines += ["", *(f"- {one['said']}" for one in results.get("missed", ()))]
  images, at = results["dense"]["images"], "budget or asked speed-up" if asked else "budget"
  return "\n".join(lines).rstrip("\n") + (
    f"\n\nTop-1 and agreement with the dense network in percent, of {images} images; KL from the "
    "dense network's predictions in nats; ± is a standard error. Above the least KL: the 95 % "
    f"interval of the difference to the method with the least KL at that {at}, on the same "
    "images; if it contains 0, they do not differ significantly. GMACs and share: the paper's "
    "count, with similarities; real: as computed.\n"
  )


def _cells(row, asked, tuned, timed):
  dense = row["method"] == "dense"
  cells = [row["method"]]
  if asked:
    cells.append(f"{row['asked_speedup']:g}" if "asked_speedup" in row else "")
  cells.append("" if dense else f"{row['budget']:g}")
  if tuned:
    cells.append("fine-tuned" if row.get("finetuned") else "as they are")
  cells += [f"{row['top1']:.1f} ± {row['top1_error']:.1f}"]
  cells += ["", "", ""] if dense else _against_dense(row)
  cells += [f"{row['gmacs']:.3f}", f"{row['share']:.3f}"]
  cells += [f"{row['real_gmacs']:.3f}", f"{row['real_share']:.3f}"]
  if timed:
    there = "images_per_s" in row
    cells += [f"{row['images_per_s']:.1f}", f"{row['speedup']:.2f}"] if there else ["", ""]
  return cells


def _against_dense(row):
  _, low, high = row["kl_above_best"]
  return [
    f"{row['agreement']:.1f} ± {row['agreement_error']:.1f}",
    f"{row['kl']:.4f} ± {row['kl_error']:.4f}",
    "least" if low == high == 0 else f"{low:.4f} to {high:.4f}",
  ]


def _line(cells):
  return f"| {' | '.join(cells)} |"
