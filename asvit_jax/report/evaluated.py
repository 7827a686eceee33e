"""The page of an evaluation: numbers, curves and images of a network at one or more budgets."""

import jax

from asvit_jax.report import classes, images
from asvit_jax.report.page import writing
from asvit_jax.report.page.contents import Chart, Page, Point, Series, Tile
from asvit_jax.report.results import SHARE, chart_against_dense, table_of

_KEYS = ("top1", "top5", "gmacs", "share", "real_gmacs", "images", "images_per_s")


def write_report(directory, network, plan, source, results, execution, count=images.COUNT):
  """Writes the page of an evaluation; with several hosts, host 0 writes it.

  Args:
    directory: directory to write `writing.NAME` to.
    network: the `Network` whose images are shown.
    plan: a `Plan`.
    source: source of the images.
    results: dictionaries of `accuracy.evaluate`, one per budget; the first is that of `network`.
    execution: the execution of the evaluation.
    count: number of images to show, evenly spaced; all if there are fewer.

  Returns:
    Path of the file, a string.

  Raises:
    InputError: the page cannot be written, or an image cannot be read.
  """
  path = writing.path_in(directory)
  if jax.process_index() == 0:
    writing.check(directory)
    gallery, dense = images.collect(network, plan, source, execution, count)
    writing.write(directory, page_of(network, plan, results, execution, gallery, dense))
  return str(path)


def page_of(network, plan, results, execution, gallery, dense):
  """The `Page` of the results and of the return values of `images.collect`."""
  return Page(
    title=network.variant or "vision transformer",
    summary=_summary(network, plan, results[0], execution),
    tiles=_tiles(results[0], gallery, dense),
    charts=_charts(results, dense),
    tables=(_table(results, dense), *_classes(network, results[0])),
    gallery=gallery,
  )


def _summary(network, plan, result, execution):
  facts = [f"{result['images']} images of {plan.data.name}, split {plan.data.eval_split}"]
  if execution != "dense":
    blocks = ", ".join(map(str, network.arch.prune_before))
    facts += [f"{network.arch.reduction}, before blocks {blocks}", f"score {network.arch.score}"]
  facts += [_budget(result)] if _budget(result) else []
  return (*facts, f"{execution} execution", network.dtype)


def _classes(network, result):
  """Tables of single classes, if the result has a confusion matrix."""
  if "confusion" not in result:
    return ()
  return classes.tables(result["confusion"], network.classes)


def _tiles(result, gallery, dense):
  """The main numbers, with those of the dense network on the same images beside them."""
  tiles = [Tile("Top-1", f"{result['top1']:.1f} %"), Tile("Top-5", f"{result['top5']:.1f} %")]
  speed = Tile("Images per second", f"{result['images_per_s']:.0f}", "loading included")
  if dense is None:
    return (*tiles, Tile("GMACs per image", f"{result['gmacs']:.3g}"), speed)
  among = len(gallery.pictures)
  on = "" if among == result["images"] else f", {among} images"
  tiles = [
    Tile("Top-1", f"{result['top1']:.1f} %", f"dense {dense['top1']:.1f} %{on}"),
    Tile("Top-5", f"{result['top5']:.1f} %", f"dense {dense['top5']:.1f} %{on}"),
    Tile(
      "Share of the dense GMACs",
      f"{100 * result['share']:.1f} %",
      f"{result['gmacs']:.3g} of {dense['gmacs']:.3g}",
    ),
  ]
  lost, won = (sum(map(test, gallery.pictures)) for test in (_lost, _won))
  return (
    *tiles,
    Tile("Lost and won by pruning", f"{lost} and {won}", f"of {among} images"),
    speed,
  )


def _lost(picture):
  return picture.dense[0] == picture.label != picture.prediction


def _won(picture):
  return picture.dense[0] != picture.label == picture.prediction


def _charts(results, dense):
  """Top-1 against cost; no chart for the dense network alone."""
  if dense is None and len(results) == 1:
    return ()
  points = [Point(100 * r["share"], r["top1"], _budget(r)) for r in results]
  series, title = [Series("pruned", tuple(points))], "Accuracy against cost"
  if dense is None:
    return (Chart(title, SHARE, "top-1, %", tuple(series)),)
  return (chart_against_dense(title, SHARE, series, 100.0, dense["top1"]),)


def _budget(result):
  return f"budget {result['budget']:g}" if result.get("budget") is not None else ""


def _table(results, dense):
  rows = [({"name": _budget(result) or "network"} | result) for result in results]
  rows += [] if dense is None else [{"name": "without pruning"} | dense]
  return table_of("network", rows, _KEYS, ("patches kept by each stage", _kept))


def _kept(row):
  return ", ".join(f"{stage['mean']:.0f}" for stage in row["kept"]) or None
