"""Combines page, style, scripts and data into one HTML file."""

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
# In their order in the page: the last script starts it.
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
  """Raises InputError if a page could not be written to a directory, which need not exist yet."""
  storage.check_writable(directory, "the report", [NAME])


def path_in(directory):
  """The path of the page in a directory."""
  return storage.path(directory) / NAME


def write(directory, page):
  """Writes a page and replaces an existing one.

  Args:
    directory: directory to write `NAME` to; created if it is missing.
    page: a `Page`.

  Returns:
    Path of the file.

  Raises:
    InputError: the page cannot be written.
  """
  path = path_in(directory)
  storage.write(path, render(page), "the report")
  return path


def render(page):
  """The HTML text of a page.

  Names of classes and files come from users and may contain anything. The scripts receive them as
  data and show them as text, and they cannot close the element around the data. Style and script
  are allowed by their hashes, so a browser runs no others, and nothing is loaded from anywhere.
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
  # In one pass: inserted text is not searched for placeholders.
  return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def as_data(page):
  """A page as JSON for a script element, with `<`, `>` and `&` escaped.

  NaN and infinities become null.
  """
  text = json.dumps(_plain(page), allow_nan=False, separators=(",", ":"))
  return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _plain(value):
  """Converts dataclasses, tuples and bytes to JSON's types."""
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
  """The hash of a style or script in the syntax of a content security policy."""
  return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name):
  return (importlib.resources.files(__package__) / name).read_text("utf-8")
