"""The page of a measurement."""

from asvit_jax.report.page import writing
from asvit_jax.report.page.contents import Chart, Column, Page, Point, Series, Table, Tile

NAME = writing.NAME
# {key of a result: (heading, decimals)}, see `throughput`.
_SPEED = {
  "images_per_s": ("images/s", 1),
  "speedup": ("speed-up over dense", 3),
  "ms": ("ms", 2),
  "spread_ms": ("± ms", 2),
  "gmacs": ("GMACs", 3),
  "compile_s": ("compiled in, s", 1),
  "memory_mb": ("MiB, by the compiler", 0),
}
_OF = {
  "network": ("network", None),
  "reduction": ("reduction", None),
  "share": ("share of dense", 2),
  "batch": ("batch", 0),
  "execution": ("execution", None),
  "dtype": ("type", None),
  "by": ("by", None),
}
_COMPARED = {
  "what": ("compared with masked, or with XLA's step", None),
  "says": ("result", None),
  "same": ("images with the same tokens", 0),
  "undecided": ("decided by rounding", 0),
  "wrong": ("wrong", 0),
  "furthest": ("furthest from the threshold, std", 4),
  "logits_error": ("logits differ by, std", 6),
  "loss_error": ("loss differs by, share", 7),
  "gradient_error": ("gradient differs by, share", 7),
}
_STEP = {
  "images": ("images a step", 0),
  "devices": ("devices", 0),
  "images_per_s": ("images/s", 1),
  "ms": ("ms", 1),
  "first_s": ("first step, s", 1),
  "loss": ("loss", 4),
}
_RIVAL = {
  "images_per_s": ("images/s", 1),
  "ms": ("ms", 2),
  "first_s": ("first call, s", 1),
  "torch": ("torch", None),
  "timm": ("timm", None),
}


def write(directory, measured):
  """Writes the page of the measurements of `running.run`; returns its path."""
  return writing.write(directory, page_of(measured))


def page_of(measured):
  """The `Page` of the measurements of `running.run`."""
  machine, rows = measured["machine"], _rows(measured)
  versions = ", ".join(f"{k} {machine[k]}" for k in ("jax", "libtpu") if k in machine)
  summary = [
    f"{machine['device']} ({machine['platform']}), {machine['devices']} device(s); {versions}",
    "random weights, calibrated on noise that keeps tokens as unevenly as photographs",
    "images/s of a batch that is on the device, in turn with dense",
  ]
  if machine["quick"]:
    summary.append("quick settings: a tiny network, whose speed says nothing about others")
  if "peak_memory_mb" in measured:
    summary.append(f"peak memory of the device: {measured['peak_memory_mb']:,.0f} MiB")
  return Page(
    title=f"{machine['device']}: correctness and speed",
    summary=tuple(summary),
    tiles=tuple(_tiles(measured, rows)),
    charts=tuple(_charts(rows["throughput"])),
    tables=tuple(table for table in _tables(measured, rows) if table.rows),
  )


def _rows(measured):
  """{kind: list of dictionaries, what a part is of and its result} of the parts that are done."""
  rows = {kind: [] for kind in ("correctness", "throughput", "training", "rival")}
  for part in measured["parts"].values():
    if part["status"] == "done":
      results = part["result"] if isinstance(part["result"], list) else [part["result"]]
      rows[part["kind"]] += [part["of"] | result for result in results]
  return rows


def _tiles(measured, rows):
  said = {True: "yes", False: "no", None: "not all compared"}[measured["correct"]]
  yield Tile("Correct", said, f"{len(rows['correctness'])} comparisons with masked")
  for row in rows["throughput"][:3]:
    label = "{execution}, {network}, {reduction} {share:.0%}, batch {batch}".format(**row)
    yield Tile(label, f"{row['speedup']:.2f}×", f"dense {row['dense']['images_per_s']:,.0f}/s")


def _charts(rows):
  """Speed-up against the batch for each network and reduction."""
  for network, reduction in dict.fromkeys((r["network"], r["reduction"]) for r in rows):
    ours = [r for r in rows if (r["network"], r["reduction"]) == (network, reduction)]
    series = []
    for execution, share in dict.fromkeys((r["execution"], r["share"]) for r in ours):
      found = [r for r in ours if (r["execution"], r["share"]) == (execution, share)]
      points = [
        Point(r["batch"], r["speedup"], f"{r['images_per_s']:,.0f} images/s")
        for r in sorted(found, key=lambda r: r["batch"])
      ]
      series.append(Series(f"{execution}, {share:.0%}", tuple(points)))
    yield Chart(
      *(f"Speed-up, {network}, {reduction}", "images in a batch", "speed-up over dense"),
      tuple(series),
      level=("dense", 1.0),
    )


def _tables(measured, rows):
  compared = [row | {"says": _says(row)} for row in rows["correctness"]]
  yield _table(
    "Correctness", compared, {k: _OF[k] for k in ("network", "reduction", "dtype")} | _COMPARED
  )
  dense = {}
  for row in rows["throughput"]:
    of = {key: row[key] for key in ("network", "batch", "dtype")}
    dense.setdefault(tuple(of.values()), of | {"execution": "dense"} | row["dense"])
  yield _table("Speed", [*dense.values(), *rows["throughput"]], _OF | _SPEED)
  yield _table("Training step", rows["training"], _OF | _STEP)
  yield _table("Dense by timm under torch.compile", rows["rival"], _OF | _RIVAL)
  others = [
    {"part": name, "status": part["status"], "reason": part.get("reason")}
    for name, part in measured["parts"].items()
    if part["status"] != "done"
  ]
  headings = {"part": ("part", None), "status": ("status", None), "reason": ("why", None)}
  yield _table("Not measured", others, headings)


def _says(row):
  if "refused" in row:
    return f"not run: {row['refused']}"
  if "error" in row:
    return row["error"]
  return "agrees" if row["agrees"] else "DIFFERS"


def _table(title, rows, columns):
  """The `Table` of rows, without columns that are empty in all of them."""
  shown = {k: c for k, c in columns.items() if any(row.get(k) is not None for row in rows)}
  lines = tuple(tuple(row.get(key) for key in shown) for row in rows)
  return Table(title, tuple(Column(*column) for column in shown.values()), lines)
