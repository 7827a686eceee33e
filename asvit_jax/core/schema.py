"""JSON from files: bounded in size and depth, and held to a schema before anything is made of it.

What a stranger wrote into a file can be of any type, of any size and nested without end: so the
JSON that this package parses from files comes through here, but for files of classes, which
`data.sources.classes` bounds. A schema is a dictionary in the words of JSON Schema
(json-schema.org, draft 2020-12); `array`, `table` and their siblings write the usual ones. It must
not be changed once it was used.
"""

import functools
import json
import math
import reprlib

from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line

MOST_BYTES = 8 << 20
_MOST_DEPTH = 32  # what this package writes is at most 6 deep
_MOST_KNOWN = 256
_known = {}  # {id of a schema: (the schema, its validator)}: what is here keeps its id


def loads(content, schema, what, advice="fetch or write it again", most_bytes=MOST_BYTES):
  """The value of a JSON text that has the form of a schema.

  Args:
    content: bytes in UTF-8, or text.
    schema: dictionary of JSON Schema.
    what: it is, for the error: "weights a.safetensors: its metadata".
    advice: for the error.
    most_bytes: length that it may have.

  Returns:
    What `json.loads` makes of it.

  Raises:
    InputError: no JSON, too long or too deep, or a value that the schema does not allow, by its
      place.
  """
  if len(content) > most_bytes:
    raise InputError(
      f"{what} has {len(content):,} bytes, expected at most {most_bytes:,}: {advice}"
    )
  try:
    value = json.loads(content)
  except RecursionError as error:
    raise InputError(f"{what} is nested too deeply: {advice}") from error
  except ValueError as error:  # of JSON, of UTF-8, of a number with thousands of digits
    raise InputError(f"{what} is not JSON ({str(error)[:200]}): {advice}") from error
  return check(value, schema, what, advice)


def check(value, schema, what, advice="fetch or write it again"):
  """Returns a value of JSON that has the form of a schema; others raise InputError as `loads`."""
  if _deeper_than(value, _MOST_DEPTH):
    raise InputError(f"{what} is nested too deeply: {advice}")
  error = next(_validator(schema).iter_errors(value), None)
  if error is None:
    return value
  place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
  place = on_a_line(place.lstrip(".")[:200])
  where = f"{place} is " if place else "it is "
  raise InputError(
    f"{what}: {where}{_short(error.instance)}, expected {_expected(error)}: {advice}"
  )


def integer(least=0, most=2**31 - 1):
  """The schema of a whole number in [least, most]."""
  return {"type": "integer", "minimum": least, "maximum": most}


def number(least=-1e30, most=1e30):
  """The schema of a finite number in [least, most]."""
  return {"type": "number", "minimum": least, "maximum": most}


def text(most=4096, choices=None):
  """The schema of a text of at most so many characters, or of one of some."""
  if choices is not None:
    return {"enum": list(choices)}
  return {"type": "string", "maxLength": most}


BOOLEAN = {"type": "boolean"}
NULL = {"type": "null"}
ANY = {}


def either(*schemas):
  """The schema of what has one of several forms."""
  return {"anyOf": list(schemas)}


def array(items, least=0, most=1 << 20):
  """The schema of a list of `least` to `most` items."""
  return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def table(fields=(), required=(), others=True):
  """The schema of an object.

  Args:
    fields: {key: schema}.
    required: keys that must be there.
    others: whether keys besides these may be; or the schema of their values.
  """
  return {
    "type": "object",
    "properties": dict(fields),
    "required": list(required),
    "additionalProperties": others,
  }


def _validator(schema):
  """That of a schema, without looking through one that was here before."""
  known, validator = _known.get(id(schema), (None, None))
  if known is not schema:
    validator = _made(json.dumps(schema))
    if len(_known) >= _MOST_KNOWN:  # some calls make a schema of their own
      _known.clear()
    _known[id(schema)] = schema, validator
  return validator


@functools.cache
def _made(schema):
  import jsonschema  # it takes a tenth of a second to import

  # JSON Schema takes 3.0 for a whole number, and Python's JSON knows numbers that are not finite.
  kinds = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
    {
      "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
      "number": lambda _, value: (
        (isinstance(value, int) and not isinstance(value, bool))  # of any length
        or (isinstance(value, float) and math.isfinite(value))
      ),
    }
  )
  strict = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=kinds)
  return strict(json.loads(schema))


def _deeper_than(value, depth):
  level = [value]
  for _ in range(depth):
    level = [
      item
      for node in level
      if isinstance(node, (dict, list))
      for item in (node.values() if isinstance(node, dict) else node)
    ]
    if not level:
      return False
  return True


def _short(value):
  shortened = reprlib.Repr()
  shortened.maxstring = shortened.maxother = 60
  shortened.maxlong = 30
  return shortened.repr(value)


_EXPECTED = {
  "minimum": "at least {}",
  "maximum": "at most {}",
  "exclusiveMinimum": "more than {}",
  "exclusiveMaximum": "less than {}",
  "minItems": "at least {} items",
  "maxItems": "at most {} items",
  "minLength": "at least {} characters",
  "maxLength": "at most {} characters",
  "pattern": "text of the form {}",
}
_KINDS = {
  "integer": "a whole number",
  "number": "a finite number",
  "string": "text",
  "array": "a list",
  "object": "an object of names and values",
  "boolean": "true or false",
  "null": "null",
}


def _expected(error):
  """What a schema asks for where a value fails it, in words."""
  asked = error.validator_value
  if error.validator == "type":
    return " or ".join(_KINDS[kind] for kind in ([asked] if isinstance(asked, str) else asked))
  if error.validator == "enum":
    return "one of " + ", ".join(map(str, asked))
  if error.validator == "required":
    missing = [key for key in asked if key not in error.instance]
    return f"an object with {missing[0]!r}"
  if error.validator == "additionalProperties":
    known = error.schema.get("properties", {})
    return f"no other keys than {', '.join(known)}"
  if error.validator == "anyOf":
    return " or ".join(dict.fromkeys(_expected(inner) for inner in error.context))
  return _EXPECTED[error.validator].format(asked)
