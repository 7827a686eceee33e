"""Untrusted JSON: bounded in size and depth, and validated by a schema before use.

Values in a stranger's file may have any type, any size and any depth. All JSON that this package
reads from files passes through here, except class files, which `data.sources.classes` bounds
itself. A schema is a dictionary of JSON Schema (json-schema.org, draft 2020-12); `array`, `table`
and the other helpers build the common ones. Do not change a schema after its first use.
"""

import functools
import json
import math
import reprlib

from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line

MOST_BYTES = 8 << 20
_MOST_DEPTH = 32  # the package's own JSON is at most 6 levels deep
_MOST_KNOWN = 256
_known = {}  # {id of a schema: (the schema, its validator)}; keeping it here keeps its id valid


def loads(content, schema, what, advice="fetch or write it again", most_bytes=MOST_BYTES):
  """Parses JSON text and validates it by a schema.

  Args:
    content: bytes in UTF-8, or text.
    schema: dictionary of JSON Schema.
    what: a description for the error: "weights a.safetensors: its metadata".
    advice: what to do, for the error.
    most_bytes: largest length allowed.

  Returns:
    The parsed value.

  Raises:
    InputError: the text is not JSON, too long or too deep, or a value violates the schema; the
      message gives its place.
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
  """Returns a parsed value that satisfies a schema; raises InputError, as `loads`, otherwise."""
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
  """The schema of a text of at most `most` characters, or of one of the given choices."""
  if choices is not None:
    return {"enum": list(choices)}
  return {"type": "string", "maxLength": most}


BOOLEAN = {"type": "boolean"}
NULL = {"type": "null"}
ANY = {}


def either(*schemas):
  """The schema of a value that satisfies one of several schemas."""
  return {"anyOf": list(schemas)}


def array(items, least=0, most=1 << 20):
  """The schema of a list of `least` to `most` items."""
  return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def table(fields=(), required=(), others=True):
  """The schema of an object.

  Args:
    fields: {key: schema}.
    required: keys that must be there.
    others: whether other keys are allowed; or the schema of their values.
  """
  return {
    "type": "object",
    "properties": dict(fields),
    "required": list(required),
    "additionalProperties": others,
  }


def _validator(schema):
  """The validator of a schema, cached by the schema's identity."""
  known, validator = _known.get(id(schema), (None, None))
  if known is not schema:
    validator = _made(json.dumps(schema))
    if len(_known) >= _MOST_KNOWN:  # some callers build a schema for each call
      _known.clear()
    _known[id(schema)] = schema, validator
  return validator


@functools.cache
def _made(schema):
  import jsonschema  # 0.1 s to import

  # JSON Schema accepts 3.0 as an integer, and Python's JSON parses NaN and infinities; we do not.
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
  """What a schema expected where a value violates it, in words."""
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
