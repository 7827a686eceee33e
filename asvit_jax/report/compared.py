"""The page of a comparison: methods against each other on the same weights and images."""

from asvit_jax.report.page import writing
from asvit_jax.report.page.contents import Page, Point, Series, Tile
from asvit_jax.report.results import SHARE, chart_against_dense, table_of

_KEYS = (
  *("budget", "top1", "agreement", "kl", "gmacs", "share", "real_gmacs", "images_per_s", "speedup"),
)


def write_comparison(directory, results, title, summary=(), gallery=None):
  """Writes the page of a comparison.

  Args:
    directory: to write `writing.NAME` to.
    results: of `comparison.running.Comparison.run`: `dense`, a dictionary of at least `top1` and
      `gmacs`; and `results`, those of methods, with `method`, `budget`, `finetuned`, `share` and
      what `results` has columns for.
    title: of the page.
    summary: facts to stand under it.
    gallery: `Gallery` of one of the networks, of `images.collect`, or None.

  Returns:
    Path of the file, a string.

  Raises:
    InputError: it cannot be written.
  """
  return str(writing.write(directory, page_of(results, title, summary, gallery)))


def page_of(results, title, summary=(), gallery=None):
  """The `Page`; see `write_comparison`."""
  return Page(
    title=title,
    summary=tuple(summary),
    tiles=_tiles(results),
    charts=tuple(_charts(results)),
    tables=(_table(results),),
    gallery=gallery,
  )


def _tiles(results):
  """The dense network, and the best method at every budget."""
  tiles = [Tile("Dense", f"{results['dense']['top1']:.1f} %", "top-1")]
  rows = results["results"]
  for budget in sorted({row["budget"] for row in rows}, reverse=True):
    best = max((row for row in rows if row["budget"] == budget), key=lambda row: row["top1"])
    tiles.append(Tile(f"Best at budget {budget:g}", f"{best['top1']:.1f} %", _name(best)))
  return tuple(tiles)


def _charts(results):
  """Top-1 against cost for each kind of weights, and where it was timed against the speed-up."""
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
  if timed:
    # A ratio: the rounds of two budgets ran minutes apart, each beside the dense network.
    axis = "times the dense network's speed"
    yield chart("Speed, without training", axis, timed, lambda row: row["speedup"], 1.0)


def _series(rows, at):
  """A `Series` a method, its points by budget."""
  for method in dict.fromkeys(row["method"] for row in rows):
    points = [
      Point(at(row), row["top1"], f"budget {row['budget']:g}")
      for row in rows
      if row["method"] == method
    ]
    yield Series(method, tuple(points))


def _table(results):
  rows = [{"name": _name(row)} | row for row in results["results"]]
  rows.append({"name": "dense"} | results["dense"])
  return table_of("method", rows, _KEYS)


def _name(row):
  return f"{row['method']}, fine-tuned" if row["finetuned"] else row["method"]
