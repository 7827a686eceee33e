"""What was measured, kept in files, so that a comparison that was interrupted goes on."""

import json
import zlib

import jax

from asvit_jax.config.keys import flatten
from asvit_jax.core import leaves, schema, storage

# Of the config, what decides what is measured; what speeds it up does not.
_DATA = (
  *("name", "dir", "classes", "eval_split", "crop_ratio", "mean", "std", "interpolation"),
  "max_bad_images",
)
# What a measurement says; one that says less is made anew.
_MEASURED = "top-1, divergence of each image"
_RECIPE = ("seed", "epochs", "total_steps", "batch_size", "data", "mix", "optimizer")


_NUMBERS = schema.array(schema.number(), most=10_000)
_RECORD = schema.table(
  {
    "result": schema.table(
      {name: schema.number() for name in ("top1", "gmacs", "share", "real_gmacs", "real_share")}
      | {"dense": schema.table(), "thresholds": _NUMBERS, "counts": _NUMBERS}
      | {"speedup": schema.number(1e-9)}
    )
  },
  required=("result",),
)


class Records:
  """One file a measurement, `DIRECTORY/measured/NAME-KEY.json`.

  The key is a checksum of all settings that the measurement depends on: with others, nothing is
  found, and nothing is overwritten.

  Args:
    directory: of the comparison.
  """

  def __init__(self, directory):
    self._directory = storage.path(directory) / "measured"

  def find(self, name, settings):
    """The dictionary of that measurement, or None."""
    path = self._path(name, settings)
    if not path.is_file():
      return None
    content = storage.read(path, schema.MOST_BYTES)
    return schema.loads(content, _RECORD, str(path), "remove it, and it is measured again")[
      "result"
    ]

  def add(self, name, settings, result):
    """Writes a measurement; raises InputError where it cannot be written."""
    content = {"result": result, "settings": settings}
    storage.write(self._path(name, settings), json.dumps(content, indent=1), "a measurement")

  def _path(self, name, settings):
    key = zlib.crc32(json.dumps(settings, sort_keys=True).encode())
    return self._directory / f"{name.replace(':', '.')}-{key:08x}.json"


def base_settings(network, config, source):
  """What every measurement depends on, for JSON.

  Args:
    network: the `Network`, dense.
    config: a config.
    source: of the images to evaluate on.
  """
  return {
    "measured": _MEASURED,
    "weights": leaves.fingerprint(network.params),
    "preprocessing": network.preprocessing.to_json(),
    "dtype": network.dtype,
    "images": len(source),
    "data": {key: _plain(config.data[key]) for key in _DATA},
  }


def contender_settings(contender, train_split=None):
  """What a contender adds to it; `train_split` is where thresholds come from."""
  arch = contender.network.arch
  settings = {
    "budget": contender.budget,
    "architecture": arch.to_json(),
    "counts": list(contender.counts),
  }
  if arch.prefix_tokens > 1:  # some methods let the second go once: that is not to be found again
    settings["tokens_that_stay"] = arch.prefix_tokens
  return settings | ({"calibrated_on": train_split} if contender.method.adaptive else {})


def timing_settings(rounds, batch):
  """What a timing adds to it: so many rounds of a batch, on the device of this process."""
  return {
    "rounds": rounds,
    "batch": batch,
    "on": "images of representative costs",
    "device": jax.devices()[0].device_kind,
  }


def recipe_settings(config, images):
  """What fine-tuning on so many images adds to it."""
  flat = {key: _plain(value) for key, value in flatten(config).items()}
  speed = ("data.workers", "data.check_images", "data.cache")
  return {
    "recipe": {k: v for k, v in flat.items() if k.split(".")[0] in _RECIPE and k not in speed},
    "training_images": images,
  }


def _plain(value):
  return list(value) if isinstance(value, tuple) else value
