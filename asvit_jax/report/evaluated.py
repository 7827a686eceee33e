"""The page of an evaluation: numbers, curves and images of one network at one or more budgets."""

import jax

from asvit_jax.report import images
from asvit_jax.report.page import writing
from asvit_jax.report.page.contents import Chart, Column, Page, Point, Series, Table, Tile

# Keys of results: column of the table, decimals. A column that no result has is left out.
COLUMNS = {
  "top1": ("top-1, %", 2),
  "top5": ("top-5, %", 2),
  "gmacs": ("GMACs", 3),
  "share": ("share of dense", 3),
  "real_gmacs": ("GMACs really computed", 3),
  "images": ("images", 0),
  "images_per_s": ("images/s", 1),
}


def write_report(directory, network, config, source, results, execution, count=images.COUNT):
  """Writes the page of an evaluation; of several hosts the first does.

  Args:
    directory: to write `writing.NAME` to.
    network: the `Network` whose images are shown.
    config: its config.
    source: where the images come from.
    results: dictionaries of `accuracy.evaluate`, one a budget; further keys that `COLUMNS` knows
      are shown too. The first is of `network` as it is.
    execution: that they were evaluated with.
    count: images to show, evenly spaced; all where there are fewer.

  Returns:
    Path of the file, a string.

  Raises:
    InputError: it cannot be written, or an image cannot be read.
  """
  path = writing.path_in(directory)
  if jax.process_index() == 0:
    gallery, dense = images.collect(network, config, source, execution, count)
    writing.write(directory, page_of(network, config, results, execution, gallery, dense))
  return str(path)


def page_of(network, config, results, execution, gallery, dense):
  """The `Page` of results and of what `images.collect` returned."""
  return Page(
    title=network.variant or "vision transformer",
    summary=_summary(network, config, results[0], execution),
    tiles=_tiles(results[0], gallery, dense),
    charts=_charts(results, dense),
    tables=(_table(results, dense),),
    gallery=gallery,
  )


def _summary(network, config, result, execution):
  facts = [f"{result['images']} images of {config.data.name}, split {config.data.eval_split}"]
  if execution != "dense":
    blocks = ", ".join(map(str, network.arch.prune_before))
    facts += [f"{network.arch.reduction}, before blocks {blocks}", f"score {network.arch.score}"]
  facts += [_budget(result)] if _budget(result) else []
  return (*facts, f"{execution} execution", network.dtype)


def _tiles(result, gallery, dense):
  """The numbers to see first; what the dense network got on the same images beside them."""
  tiles = [Tile("Top-1", f"{result['top1']:.1f} %"), Tile("Top-5", f"{result['top5']:.1f} %")]
  speed = Tile("Images per second", f"{result['images_per_s']:.0f}", "loading included")
  if dense is None:
    return (*tiles, Tile("GMACs an image", f"{result['gmacs']:.3g}"), speed)
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
    Tile("Lost and won", f"{lost} and {won}", f"of {among} images, by pruning"),
    speed,
  )


def _lost(picture):
  return picture.dense[0] == picture.label != picture.prediction


def _won(picture):
  return picture.dense[0] != picture.label == picture.prediction


def _charts(results, dense):
  """Top-1 against cost; nothing where there is only the dense network."""
  if dense is None and len(results) == 1:
    return ()
  points = [Point(100 * r["share"], r["top1"], _budget(r)) for r in results]
  series = [Series("pruned", tuple(points))]
  level = None
  if dense is not None:
    series.append(Series("dense", (Point(100.0, dense["top1"]),)))
    level = ("dense", dense["top1"])
  return (
    Chart("Accuracy against cost", "share of the dense GMACs, %", "top-1, %", tuple(series), level),
  )


def _budget(result):
  return f"budget {result['budget']:g}" if result.get("budget") is not None else ""


def _table(results, dense):
  rows = [({"name": _budget(result) or "network"} | result) for result in results]
  rows += [] if dense is None else [{"name": "without pruning"} | dense]
  keys = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
  columns = [Column("network"), *(Column(*COLUMNS[key]) for key in keys)]
  columns += [Column("patches kept by each stage")]
  return Table("Results", tuple(columns), tuple(_row(row, keys) for row in rows))


def _row(row, keys):
  kept = ", ".join(f"{stage['mean']:.0f}" for stage in row["kept"])
  return (row["name"], *(row.get(key) for key in keys), kept or None)
