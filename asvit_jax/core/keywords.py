"""Keyword arguments of parts, as configs give them."""

import ast
import inspect

from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.core.printable import shown


def parse(text, key):
  """Parses keyword arguments from text.

  Args:
    text: "b1=0.9,b2=0.95", with values that `ast.literal_eval` reads.
    key: the config's key, for the error.

  Returns:
    Dictionary.

  Raises:
    InputError: the text does not have this form.
  """
  try:
    call = ast.parse(f"_({text})", mode="eval").body
    names = [keyword.arg for keyword in call.keywords]
    if not isinstance(call.func, ast.Name) or call.args or None in names:
      raise ValueError(text)
    if len(names) != len(set(names)):
      raise ValueError(text)
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
  except (
    *(SyntaxError, ValueError, TypeError, AttributeError),
    *(RecursionError, MemoryError),  # from unbounded nesting of brackets
  ) as error:
    raise InputError(
      f"{key} {shown(text)} cannot be read: expected names and values as in 'b1=0.9,b2=0.95'"
    ) from error


def check(function, arguments, key, ours=()):
  """Raises InputError for keyword arguments that a function does not accept.

  Args:
    function: any.
    arguments: names of the keyword arguments.
    key: the config's key, for the error.
    ours: names of parameters that the caller sets and the user may not.
  """
  parameters = inspect.signature(function).parameters.values()
  if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
    return
  taken = [p.name for p in parameters if p.name not in ours]
  for name in arguments:
    if name not in taken:
      raise InputError(
        f"{key}: {name} is not known; it takes {', '.join(taken) or 'none'}{hint(name, taken)}"
      )
