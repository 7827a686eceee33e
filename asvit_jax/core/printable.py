"""Makes untrusted names safe to show in terminals, pictures and pages.

Names of files, classes and tensors come from anywhere. Control characters in them could move a
terminal's cursor, change its title or clear it; characters that change the direction of text could
disguise the rest of a line; lone surrogates, which stand for bytes of file names that are not
UTF-8, cannot be written at all.
"""

import re

# Control characters (except newline, which messages contain), lone surrogates, line separators, and
# characters that change the direction of text.
_HIDDEN = re.compile(
  "[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)


def printable(text):
  r"""Text with every unprintable character escaped, such as \x1b; newlines stay.

  Args:
    text: any object; its `str` is used.
  """
  return _HIDDEN.sub(lambda match: _escape(match[0]), str(text))


def on_a_line(text):
  """As `printable`, with newlines escaped, too: for a name within other text."""
  return printable(text).replace("\n", "\\n")


def shown(value, most=200):
  """The `repr` of a value for an error message: on one line, cut after `most` characters."""
  try:
    text = repr(value)
  except Exception:  # a number with thousands of digits, or an object's own bug
    text = f"of type {type(value).__name__}"
  return on_a_line(text if len(text) <= most else f"{text[:most]}…")


def error_line(error):
  """An error as a command prints it at its end: one line, and indented lines for lists.

  A newline within a name cannot start a line of its own.
  """
  return "error: " + re.sub(r"\n(?!  )", r"\\n", printable(error))


def _escape(character):
  code = ord(character)
  return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
