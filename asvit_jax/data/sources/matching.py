"""Which image of a directory a name in a file of labels means."""

import os
import re

import numpy as np

from asvit_jax.data.sources.classes import normal

_IMAGENET = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+$")


def by_line(names, count):
  """(count,) numbers among names that say the line they are in, as ImageNet's; None of others."""
  found = [_IMAGENET.search(name) for name in names]
  lines = {int(match[1]) - 1: number for number, match in enumerate(found) if match}
  if len(lines) < len(names) or min(lines) < 0 or max(lines) >= count:
    return None
  places = np.full(count, -1, np.int64)
  places[list(lines)] = list(lines.values())
  return places


def by_name(wanted, names, root):
  """(wanted,) int64 numbers among the names, -1 for none: by path, or by file alone.

  Args:
    wanted: what the file says; directories may be separated as Windows does.
    names: of the images, relative to `root`.
    root: their directory.
  """
  places = np.full(len(wanted), -1, np.int64)
  prefixes = (f"{os.path.abspath(root)}/", "./", f"{os.path.basename(root)}/")
  wanted = [normal(file.replace("\\", "/")) for file in wanted]
  for i, file in enumerate(wanted):
    for prefix in prefixes:
      file = file.removeprefix(prefix)
    wanted[i] = file
  for ours, theirs in (
    (lambda name: name, lambda file: file),
    (lambda name: os.path.splitext(name)[0], lambda file: file),
    (os.path.basename, os.path.basename),
    (lambda name: os.path.splitext(os.path.basename(name))[0], os.path.basename),
  ):
    left = np.flatnonzero(places < 0).tolist()
    if not left:
      break
    number_of = {}
    for number, name in enumerate(names):
      name = normal(ours(name))
      number_of[name] = -1 if name in number_of else number
    places[left] = [number_of.get(theirs(wanted[i]), -1) for i in left]
  return places
