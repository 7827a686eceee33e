"""Puts page, style, scripts and data together into one file."""

import base64
import dataclasses
import hashlib
import html
import importlib.resources
import json
import math
import re

from asvit_jax.core import storage

NAME = "index.html"
# In the order in which they stand in the page: the last one starts it.
SCRIPTS = (
  "dom.js",
  "data.js",
  "table.js",
  "chart.js",
  "histogram.js",
  "filters.js",
  "cards.js",
  "viewer.js",
  "gallery.js",
  "main.js",
)


def check(directory):
  """Raises InputError where a page could not be written to a directory, which may be missing."""
  storage.check_writable(directory, "the report", [NAME])


def path_in(directory):
  """Path of the page in a directory."""
  return storage.path(directory) / NAME


def write(directory, page):
  """Writes a page; what was there under its name goes.

  Args:
    directory: to write `NAME` to; made where it is not there.
    page: a `Page`.

  Returns:
    Path of the file.

  Raises:
    InputError: it cannot be written.
  """
  path = path_in(directory)
  storage.write(path, render(page), "the report")
  return path


def render(page):
  """The text of the file.

  Names of classes and files come from users and may hold anything. They are data for the scripts,
  which show them as text, and cannot end the element that they stand in. The style and the script
  are allowed by their hashes, so a browser runs no other, and nothing is loaded from anywhere.
  """
  style = _asset("page.css")
  script = "\n".join(["(() => {\n'use strict';", *map(_asset, SCRIPTS), "})();\n"])
  parts = {
    "POLICY": (
      f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
      f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    ),
    "TITLE": html.escape(page.title),
    "STYLE": style,
    "DATA": as_data(page),
    "SCRIPT": script,
  }
  # All at once: what is put in is not searched for names of other parts.
  return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def as_data(page):
  """A page as JSON that can stand in a script element: `<`, `>` and `&` as escapes.

  Numbers that are none become null.
  """
  text = json.dumps(_plain(page), allow_nan=False, separators=(",", ":"))
  return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _plain(value):
  """Dataclasses, tuples and bytes as what JSON has for them."""
  if dataclasses.is_dataclass(value):
    return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
  if isinstance(value, dict):
    return {str(key): _plain(item) for key, item in value.items()}
  if isinstance(value, tuple | list):
    return [_plain(item) for item in value]
  if isinstance(value, bytes):
    return base64.b64encode(value).decode()
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  return value


def _hash(text):
  """What a content security policy calls a style or a script by."""
  return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name):
  return (importlib.resources.files(__package__) / name).read_text("utf-8")
