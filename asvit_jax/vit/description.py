"""The description of a network in files, the result of `Network.describe()`: its form.

It is stored in the headers of weights, in `network.json` of workdirs, and in the notes of
artifacts. Before it is written, it is validated here, so that it can be read again.
`Architecture.from_json` validates `architecture`.
"""

from asvit_jax.core import schema
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line
from asvit_jax.vit import fields

UNREADABLE = "it could not be read again, and is not written"  # the advice when writing fails
MOST_BYTES = 64 << 20  # of JSON: a million names of 64 characters
_MOST_CLASSES, _MOST_NAME = fields.WHOLE["classes"], 1 << 12
_CHANNELS = schema.array(schema.number(), most=16)  # `Preprocessing` checks number and values
FIELDS = {
  "variant": schema.text(200),
  "architecture": schema.table(),
  "preprocessing": schema.table(
    {
      "crop_ratio": schema.number(),
      "mean": _CHANNELS,
      "std": _CHANNELS,
      "interpolation": schema.text(100),
      "crop_mode": schema.text(100),
    }
  ),
  # Not the items: a validator takes seconds for a million names, so `_check_classes` checks them.
  "classes": {"type": ["array", "null"]},
  "budgets": schema.array(schema.number(1e-6, 1), most=1000),
  "counts": schema.array(schema.array(schema.integer(0, 1 << 20), most=1 << 10), most=1000),
  "speedups": schema.array(schema.table(), most=1000),  # see `pacing.speeds`
}
_DESCRIPTION = schema.table(FIELDS)
_LEVELS = schema.array(schema.number(), most=1 << 10)
_THRESHOLDS = schema.either(_LEVELS, schema.array(_LEVELS, most=1000))


def loads(content, what, advice="fetch or write it again", form=_DESCRIPTION):
  """Parses a description from JSON and validates it.

  Args:
    content: bytes or text.
    what: a description for the error.
    advice: what to do, for the error.
    form: schema (`core.schema`) of the whole text if it has further fields.

  Returns:
    Dictionary; unknown keys are kept.

  Raises:
    InputError: the text is not JSON, too long, or not of this form.
  """
  found = schema.loads(content, form, what, advice, MOST_BYTES)
  _check_classes(found.get("classes"), what)
  return found


def load_thresholds(content, what, advice="fetch or write it again"):
  """Parses thresholds from JSON: lists of shape (stages,) or (budgets, stages).

  Args:
    content: bytes or text.
    what: a description for the error.
    advice: what to do, for the error.

  Raises:
    InputError: the text has another form.
  """
  found = schema.loads(content, _THRESHOLDS, what, advice)
  rows = [len(row) for row in found if isinstance(row, list)]
  if rows and len(set(rows)) > 1:
    raise InputError(
      f"{what}: rows of {min(rows)} and {max(rows)} numbers: expected the same number in each"
    )
  return found


def _check_classes(names, what):
  """Raises InputError unless the names of classes are a list of texts or None."""
  if names is None:
    return
  if len(names) > _MOST_CLASSES:
    raise InputError(f"{what}: {len(names):,} names of classes: expected at most {_MOST_CLASSES:,}")
  for label, name in enumerate(names):
    if not isinstance(name, str) or len(name) > _MOST_NAME:
      said = f"text of {len(name):,} characters" if isinstance(name, str) else type(name).__name__
      raise InputError(
        f"{what}: classes[{label}] is {on_a_line(said)}, expected text of at most {_MOST_NAME:,} "
        "characters"
      )
