"""The page of a comparison of methods on the same weights and images."""

from asvit_jax.report.page import writing
from asvit_jax.report.page.contents import Chart, Page, Point, Series, Tile
from asvit_jax.report.results import NORMAL_95, SHARE, chart_against_dense, table_of

_KEYS = (
  *(
    "asked_speedup",
    "budget",
    "top1",
    "agreement",
    "kl",
    "gmacs",
    "share",
    "real_gmacs",
    "images_per_s",
    "speedup",
  ),
)


def write_comparison(directory, results, title, summary=(), gallery=None):
  """Writes the page of a comparison.

  Args:
    directory: directory to write `writing.NAME` to.
    results: results of `comparison.running.Comparison.run`: `dense`, a dictionary with at least
      `top1` and `gmacs`; `results`, dictionaries of the methods with `method`, `budget`,
      `finetuned`, `share` and any columns of the table; optionally `missed`, the speed-ups that
      could not be reached, whose `said` is added to the summary.
    title: title of the page.
    summary: facts to show under the title.
    gallery: `Gallery` of one of the networks, from `images.collect`, or None.

  Returns:
    Path of the file, a string.

  Raises:
    InputError: the page cannot be written.
  """
  return str(writing.write(directory, page_of(results, title, summary, gallery)))


def page_of(results, title, summary=(), gallery=None):
  """The `Page` that `write_comparison` writes; arguments as there."""
  return Page(
    title=title,
    summary=(*summary, *(one["said"] for one in results.get("missed", ()))),
    tiles=_tiles(results),
    charts=tuple(_charts(results)),
    tables=(_table(results),),
    gallery=gallery,
  )


def _tiles(results):
  """Tiles for the dense network and for the best method at every budget and requested speed-up."""
  tiles = [Tile("Dense", f"{results['dense']['top1']:.1f} %", "top-1")]
  rows = results["results"]
  groups = {}
  for row in rows:
    asked = row.get("asked_speedup")
    groups.setdefault((asked is not None, -row["budget"] if asked is None else asked), []).append(
      row
    )
  for (searched, at), group in sorted(groups.items()):
    best = max(group, key=lambda row: row["top1"])
    at = f"speed-up {at:g}" if searched else f"budget {-at:g}"
    tiles.append(Tile(f"Best at {at}", f"{best['top1']:.1f} %", _name(best)))
  return tuple(tiles)


def _charts(results):
  """Charts of top-1 against cost for each kind of weights, and of divergence against speed-up.

  If the divergence was not measured, the last chart shows top-1 against speed-up.
  """
  rows, dense = results["results"], results["dense"]
  plain = [row for row in rows if not row["finetuned"]]
  tuned = [row for row in rows if row["finetuned"]]

  def chart(title, x, rows, at, place):
    return chart_against_dense(title, x, _series(rows, at), place, dense["top1"])

  def share(row):
    return 100 * row["share"]

  if plain:
    yield chart("Without training", SHARE, plain, share, 100.0)
  if tuned:
    yield chart("Fine-tuned", SHARE, tuned, share, 100.0)
  timed = [row for row in plain if row.get("speedup") is not None]
  # A ratio: rounds of different budgets ran minutes apart, each in turn with the dense network.
  axis = "speed-up over the dense network"
  if timed and all(row.get("kl") is not None for row in timed):
    title = "Divergence against measured speed, without training"
    series = tuple(_divergences(timed))
    yield Chart(title, axis, "KL from the dense network, nats; bars: 95 %", series, log_y=True)
  elif timed:
    yield chart("Speed, without training", axis, timed, lambda row: row["speedup"], 1.0)


def _series(rows, at):
  """One `Series` per method with its points by budget."""
  for method in dict.fromkeys(row["method"] for row in rows):
    points = [
      Point(at(row), row["top1"], f"budget {row['budget']:g}")
      for row in rows
      if row["method"] == method
    ]
    yield Series(method, tuple(points))


def _divergences(rows):
  """One `Series` per method: divergence against speed, with 95 % intervals of the means."""
  for method in dict.fromkeys(row["method"] for row in rows):
    ours = [row for row in rows if row["method"] == method]
    errors = [NORMAL_95 * (row.get("kl_error") or 0.0) for row in ours]
    points = [
      Point(row["speedup"], row["kl"], f"± {error:.2g} (95 %), budget {row['budget']:g}")
      for row, error in zip(ours, errors, strict=True)
    ]
    yield Series(method, tuple(points), errors=tuple(errors))


def _table(results):
  rows = [{"name": _name(row)} | row for row in results["results"]]
  rows.append({"name": "dense"} | results["dense"])
  return table_of("method", rows, _KEYS)


def _name(row):
  return f"{row['method']}, fine-tuned" if row["finetuned"] else row["method"]
