"""The results as a table."""


def markdown(results):
  """The results as a Markdown table, a line a measurement.

  Args:
    results: of `Comparison.run`.

  Returns:
    Text, with a line that says what the columns are.
  """
  rows = [results["dense"] | {"method": "dense"}, *results["results"]]
  timed = any("images_per_s" in row for row in rows)
  tuned = any(row.get("finetuned") for row in rows)
  header = ["method", "budget", *(["weights"] if tuned else []), "top-1", "agreement"]
  header += ["GMACs", "share", "real GMACs", "real share", *(["images/s"] if timed else [])]
  lines = [_line(header), _line(["---"] * len(header))]
  lines += [_line(_cells(row, tuned, timed)) for row in rows]
  images = results["dense"]["images"]
  return "\n".join(lines) + (
    f"\n\nTop-1 and agreement with the dense network in percent, of {images} images. GMACs and "
    "share: the paper's count, with similarities; real: what is computed.\n"
  )


def _cells(row, tuned, timed):
  dense = row["method"] == "dense"
  cells = [row["method"], "" if dense else f"{row['budget']:g}"]
  if tuned:
    cells.append("fine-tuned" if row.get("finetuned") else "as they are")
  cells += [f"{row['top1']:.1f}", "" if dense else f"{row['agreement']:.1f}"]
  cells += [f"{row['gmacs']:.3f}", f"{row['share']:.3f}"]
  cells += [f"{row['real_gmacs']:.3f}", f"{row['real_share']:.3f}"]
  if timed:
    cells.append(f"{row['images_per_s']:.1f}" if "images_per_s" in row else "")
  return cells


def _line(cells):
  return f"| {' | '.join(cells)} |"
