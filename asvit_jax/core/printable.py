"""Names of others in what terminals, pictures and pages show.

The names of files, classes and tensors come from anywhere. Control characters in them would move a
terminal's cursor, change its title or clear it; characters that turn the direction of text would
disguise what follows; lone surrogates, which Python makes of file names that are no UTF-8, can be
written nowhere.
"""

import re

# Controls (but not the newline, which messages have), lone surrogates, line separators, and what
# changes the direction of text.
_HIDDEN = re.compile(
  "[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)


def printable(text):
  r"""Text with an escape, such as \x1b, in place of every character that is no sign; newlines stay.

  Args:
    text: anything; `str` is taken of it.
  """
  return _HIDDEN.sub(lambda match: _escape(match[0]), str(text))


def on_a_line(text):
  r"""As `printable`, for a name among other text: newlines are escaped, too."""
  return printable(text).replace("\n", "\\n")


def shown(value, most=200):
  """A value in an error: as Python writes it, on one line, and cut after so many characters."""
  try:
    text = repr(value)
  except Exception:  # of a number with thousands of digits, or of any object
    text = f"of type {type(value).__name__}"
  return on_a_line(text if len(text) <= most else f"{text[:most]}…")


def error_line(error):
  """An error as a tool ends with it: one line, and indented ones where it lists something.

  A name with a newline cannot begin a line of its own.
  """
  return "error: " + re.sub(r"\n(?!  )", r"\\n", printable(error))


def _escape(character):
  code = ord(character)
  return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
