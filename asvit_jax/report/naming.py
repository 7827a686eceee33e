"""Names of others in pictures: as they are, on one line, and no longer than fits."""

import contextlib
import warnings

from asvit_jax.core.printable import on_a_line

# matplotlib takes what stands between dollars for formulas unless it is told not to.
PLAIN = {"parse_math": False}
_LONGEST = 80  # characters


def name(text, longest=_LONGEST):
  """A name on one line, of at most so many characters."""
  shown = on_a_line(text)
  return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def plain_legend(legend):
  """Has a legend show its labels as they are."""
  for text in legend.get_texts():
    text.set_parse_math(False)


@contextlib.contextmanager
def any_signs():
  """Where letters that the font has not are drawn as boxes, without a warning for each."""
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
    yield
