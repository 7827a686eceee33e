"""Untrusted names in pictures: shown literally, on one line, and shortened to fit."""

import contextlib
import warnings

from asvit_jax.core.printable import on_a_line

# Otherwise matplotlib treats text between dollar signs as a formula.
PLAIN = {"parse_math": False}
_LONGEST = 80  # characters


def name(text, longest=_LONGEST):
  """A name on one line, of at most `longest` characters."""
  shown = on_a_line(text)
  return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def plain_legend(legend):
  """Makes a legend show its labels literally."""
  for text in legend.get_texts():
    text.set_parse_math(False)


@contextlib.contextmanager
def any_signs():
  """A context in which characters missing from the font become boxes, without warnings."""
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
    yield
