"""Tables and charts that several pages of results share."""

from asvit_jax.report.page.contents import Chart, Column, Point, Series, Table

NORMAL_95 = 1.96  # standard errors on each side of a mean
SHARE = "share of the dense GMACs, %"
# {key of results: (heading of its column, decimals)}.
_COLUMNS = {
  "asked_speedup": ("requested speed-up", 2),
  "budget": ("budget", 3),
  "top1": ("top-1, %", 2),
  "top5": ("top-5, %", 2),
  "agreement": ("same class as dense, %", 2),
  "kl": ("KL from dense", 4),
  "gmacs": ("GMACs", 3),
  "share": ("share of dense", 3),
  "real_gmacs": ("GMACs computed", 3),
  "images": ("images", 0),
  "images_per_s": ("images/s", 1),
  "speedup": ("speed-up over dense", 3),
}


def table_of(first, rows, keys, last=None):
  """The `Table` of results, without columns that are empty in all of them.

  Args:
    first: heading of the first column, which shows the rows' `name`.
    rows: dictionaries.
    keys: keys of `_COLUMNS` to show.
    last: (heading, function of a row that returns text or None) of an extra column, or None.
  """
  shown = [key for key in keys if any(row.get(key) is not None for row in rows)]
  columns = [Column(first), *(Column(*_COLUMNS[key]) for key in shown)]
  lines = [[row["name"], *(row.get(key) for key in shown)] for row in rows]
  if last is not None:
    columns.append(Column(last[0]))
    lines = [[*line, last[1](row)] for line, row in zip(lines, rows, strict=True)]
  return Table("Results", tuple(columns), tuple(map(tuple, lines)))


def chart_against_dense(title, x, series, place, top1):
  """The `Chart` of top-1, with the dense network as a point and a horizontal line.

  Args:
    title: title of the chart.
    x: label of the horizontal axis.
    series: `Series` of the pruned networks.
    place: the dense network's value on that axis.
    top1: the dense network's top-1, percent.
  """
  series = (*series, Series("dense", (Point(place, top1),)))
  return Chart(title, x, "top-1, %", series, ("dense", top1))
