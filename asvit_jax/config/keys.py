"""Dotted keys of a config."""

from ml_collections import ConfigDict


def flatten(config, prefix=""):
  """{dotted key: value} of a config, or of nested dictionaries; lists become tuples."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, (dict, ConfigDict)):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = tuple(value) if isinstance(value, list) else value
  return flat
