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
    "images; where it holds 0 they do not differ. GMACs and share: the paper's count, with "
    "similarities; real: what is computed.\n"
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
