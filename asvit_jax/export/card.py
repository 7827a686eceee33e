"""The model card of an artifact, for its repository on a model hub."""

import json
import re
import shlex

import numpy as np

from asvit_jax.core import schema
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line

_FRONT = """---
library_name: asvit_jax
pipeline_tag: image-classification
tags:
- image-classification
- vision-transformer
- token-pruning
- jax
---
"""
_USE = {
  True: """```python
import asvit_jax

network = asvit_jax.load("hf:{repository}")
outputs = network(images)  # (b, {shape}, 3) uint8 RGB -> outputs.logits, outputs.kept
```
""",
  False: """```
hf download {repository} --local-dir DIR
asvit predict --artifact {quoted} IMAGE …
```

Or from Python, `asvit_jax.load_artifact({text})(images)`.
""",
}
# {key of evaluate.py's result: (title, format)}.
_MEASURED = {
  "top1": ("top-1", "{:.2f} %"),
  "top5": ("top-5", "{:.2f} %"),
  "gmacs": ("GMACs per image, mean", "{:.4g}"),
  "share": ("share of the dense network's", "{:.3f}"),
  "images": ("images", "{}"),
}


def card(note, repository, file, results=None):
  """The text of an artifact's README.md.

  Args:
    note: note of the artifact, see `writing.export`.
    repository: OWNER/NAME.
    file: name of the artifact in the repository.
    results: final result of evaluate.py, a dictionary; None for a card without results.
  """
  arch, prune_before = note["architecture"], note["prune_before"]
  height, width = np.broadcast_to(note["image_size"], 2)
  if prune_before:
    what = "A vision transformer that drops the patches that an image does not need"
    if arch["reduction"] != "drop":
      what = (
        "A vision transformer that merges the patches that an image does not need into similar ones"
      )
  else:
    what = "A vision transformer, dense: nothing is pruned"
  file = on_a_line(file).replace("`", "'")  # code in Markdown cannot contain a backquote
  rows = [
    ("network", note["variant"] or "custom"),
    *((key.replace("_", " "), arch[key]) for key in ("width", "depth", "heads")),
    ("image size, patch size", f"{height}×{width}, {note['patch_size']}"),
    ("classes", note["num_classes"]),
    ("GMACs of the dense network", f"{note['gmacs_dense']:.4g}"),
    *_pruning_rows(note, arch),
    ("format", note["format"]),
    *((f"{name}, least version", v) for name, v in note["least_versions"].items()),
  ]
  use = _USE[note["format"] == "safetensors"]
  parts = [
    f"{_FRONT}\n# {repository.partition('/')[2]}\n",
    f"{what}. Written by asvit_jax; `{file}.json` has all of this for programs.\n",
    _table(("", ""), rows),
    "## Preprocessing\n",
    _table(("", ""), list(note["preprocessing"].items())),
    *_results(results),
    "## Use\n",
    use.format(
      repository=repository,
      shape=f"{height}, {width}",
      quoted=shlex.quote(f"DIR/{file}"),
      text=json.dumps(f"DIR/{file}", ensure_ascii=False),
    ),
  ]
  return "\n".join(parts)


def check_results(results):
  """Raises InputError unless `results` has the form of evaluate.py's final result."""
  expected = "expected the line of JSON that evaluate.py ends with, with top1 and images"
  if not (isinstance(results, dict) and {"top1", "images"} <= results.keys()):
    raise InputError(f"--results: {expected}")
  fields = {name: schema.number() for name in _MEASURED} | {"images": schema.integer()}
  schema.check(results, schema.table(fields), "--results", expected)


def _pruning_rows(note, arch):
  if not note["prune_before"]:
    return []
  blocks = ", ".join(map(str, note["prune_before"]))
  rows = [("prunes before blocks (from 0)", blocks), ("score", arch["score"])]
  if note.get("execution") == "fixed":  # then the thresholds have no effect
    rows.append(("patches that each stage keeps of every image", _numbers(note["counts"][0])))
  else:
    rows.append(("thresholds", _numbers(note["thresholds"])))
  if note["budget"] is not None:
    target = f"{note['budget']:g}, {note['gmacs_target']:.4g} GMACs"
    rows.insert(0, ("budget, share of dense", target))
  return rows


def _numbers(values):
  if values and isinstance(values[0], list):  # one list per budget
    return "; ".join(map(_numbers, values))
  return ", ".join(f"{value:.6g}" for value in values)


def _results(results):
  if results is None:
    return []
  found = {name: how for name, how in _MEASURED.items() if name in results}
  rows = [(title, form.format(results[name])) for name, (title, form) in found.items()]
  return [
    "## Results\n",
    "Measured with evaluate.py, as the author reports.\n",
    _table(("", ""), rows),
  ]


def _cell(value):
  """A value in a table, escaped so that text is neither Markdown nor HTML."""
  if isinstance(value, int | float) or _is_numbers(value):
    return value
  return re.sub(r"[\\`*\[\]<>|~$&!]", lambda m: f"&#{ord(m[0])};", on_a_line(value))


def _is_numbers(value):
  return isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value)


def _table(head, rows):
  lines = [f"| {' | '.join(head)} |", "|---|---|"]
  return (
    "\n".join([*lines, *(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows)]) + "\n"
  )
