"""Class names in a `config.json` of the hub, in label order."""

import re

from asvit_jax.core import schema
from asvit_jax.core.errors import InputError

_NAME = schema.text()
_LABEL = schema.integer()
# A list, {label: name}, or {name: label}.
SCHEMA = schema.either(schema.array(_NAME), schema.table(others=schema.either(_NAME, _LABEL)))
_WHOLE = re.compile("[0-9]{1,9}")


def names(value, key, source):
  """Class names in the order of their labels.

  Args:
    value: value that fits `SCHEMA`; None or empty if there are no names.
    key: key of the config, for the error.
    source: the weights, for the error.

  Returns:
    List of names; None if there are none.

  Raises:
    InputError: labels that are not 0 to the number of names - 1, each once.
  """
  if not value:
    return None
  if isinstance(value, list):
    found = dict(enumerate(value))
  elif all(isinstance(label, int) for label in value.values()) and not _numbered(value):
    found = {label: name for name, label in value.items()}  # {name: label}, as in label2id
  elif _numbered(value) and (_all_texts(value) or _are_numbers(value, key)):
    found = {int(label): str(name) for label, name in value.items()}
  else:
    raise _refused(key, "expected a name for each label, such as {'0': 'ant', '1': 'bee'}", source)
  if found.keys() != set(range(len(value))):
    missing = min(set(range(len(value))) - found.keys())
    raise _refused(
      key, f"its {len(value)} labels are not 0 to {len(value) - 1}: {missing} is missing", source
    )
  listed = [found[label] for label in range(len(value))]
  return None if _unnamed(listed) else listed


def unnamed(value):
  """Whether a value that fits `SCHEMA` has only names that nobody has set, such as LABEL_0."""
  return bool(value) and _unnamed(value.values() if isinstance(value, dict) else value)


def check_inverse(listed, label_of, source):
  """Raises InputError if `label2id` contradicts the names of `id2label`.

  Args:
    listed: the list that `names` returns.
    label_of: {name: label}, labels as numbers or text; None if there is no `label2id`.
    source: the weights, for the error.
  """
  if not listed or not label_of or all(re.fullmatch("LABEL_[0-9]+", name) for name in label_of):
    return
  if not isinstance(label_of, dict):
    raise _refused("label2id", "expected a label for each name", source)
  for name, label in label_of.items():
    # If two classes share a name, as ImageNet's two cranes, this is one of their labels.
    if not _WHOLE.fullmatch(str(label)) or listed[int(label) : int(label) + 1] != [name]:
      raise _refused("label2id", f"it has {name!r} as {label!r}, but id2label does not", source)


def _unnamed(listed):
  return all(name == f"LABEL_{i}" for i, name in enumerate(listed))


def _all_texts(value):
  return all(isinstance(name, str) for name in value.values())


def _are_numbers(value, key):
  """Whether all names are integers, like those of digits, rather than labels with names."""
  return all(
    isinstance(name, int) and (key == "id2label" or str(name) == label)
    for label, name in value.items()
  )


def _numbered(value):
  return all(_WHOLE.fullmatch(label) for label in value)


def _refused(key, why, source):
  return InputError(f"{source}: {key} of its config.json is not valid ({why}): correct it there")
