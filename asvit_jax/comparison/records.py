"""Files of measurements, so that an interrupted comparison continues where it stopped."""

import json
import zlib

import jax

from asvit_jax.config.keys import flatten
from asvit_jax.core import leaves, schema, storage

# Keys of `Plan.data` that change a measurement; those that only change its speed are left out.
_DATA = (
  *("name", "dir", "classes", "eval_split", "crop_ratio", "mean", "std", "interpolation"),
  "max_bad_images",
)
# The content of a measurement; one with less is measured again.
_MEASURED = "top-1, divergence of each image"
_RECIPE = ("seed", "epochs", "total_steps", "batch_size", "data", "mix", "optimizer")
# Parts under the names that they have in keys: records made before a part moved are still found.
_NAMES_IN_KEYS = {
  "asvit_jax.comparison.methods.fixed:mean_attention": (
    "asvit_jax.comparison.mean_attention:mean_attention"
  )
}

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
  """The measurements of a comparison, a file each: `DIRECTORY/measured/NAME-KEY.json`.

  The key is a checksum of all settings that the measurement depends on. A measurement with other
  settings is neither found nor overwritten.

  Args:
    directory: directory of the comparison.
  """

  def __init__(self, directory):
    self._directory = storage.path(directory) / "measured"

  def find(self, name, settings):
    """The dictionary of the measurement `name` with these settings, or None if there is none."""
    path = self._path(name, settings)
    if not path.is_file():
      return None
    content = storage.read(path, schema.MOST_BYTES)
    return schema.loads(content, _RECORD, str(path), "remove it, and it is measured again")[
      "result"
    ]

  def add(self, name, settings, result):
    """Writes the measurement `name`; raises InputError if it cannot be written."""
    content = {"result": result, "settings": settings}
    storage.write(self._path(name, settings), json.dumps(content, indent=1), "a measurement")

  def _path(self, name, settings):
    key = zlib.crc32(json.dumps(settings, sort_keys=True).encode())
    return self._directory / f"{name.replace(':', '.')}-{key:08x}.json"


def base_settings(network, plan, source):
  """The settings that every measurement depends on, a dictionary for JSON.

  Args:
    network: the `Network`, dense.
    plan: a `Plan`.
    source: the `Source` of the images to evaluate on.
  """
  return {
    "measured": _MEASURED,
    "weights": leaves.fingerprint(network.params),
    "preprocessing": network.preprocessing.to_json(),
    "dtype": network.dtype,
    "images": len(source),
    "data": {key: _plain(getattr(plan.data, key)) for key in _DATA},
  }


def contender_settings(contender, train_split=None):
  """The settings that a contender adds to `base_settings`.

  Args:
    contender: a `Contender`.
    train_split: name of the split that thresholds are calibrated on.
  """
  arch = contender.network.arch
  described = arch.to_json()
  described["score"] = _NAMES_IN_KEYS.get(described["score"], described["score"])
  settings = {
    "budget": contender.budget,
    "architecture": described,
    "counts": list(contender.counts),
  }
  if arch.prefix_tokens > 1:
    # Older measurements, in which some methods removed the distillation token, lack this key.
    settings["tokens_that_stay"] = arch.prefix_tokens
  return settings | ({"calibrated_on": train_split} if contender.method.adaptive else {})


def timing_settings(rounds, batch):
  """The settings that a timing adds: its number of rounds, its batch size and this device."""
  return {
    "rounds": rounds,
    "batch": batch,
    "on": "images of representative costs",
    "device": jax.devices()[0].device_kind,
  }


def recipe_settings(plan, images):
  """The settings that fine-tuning adds: its recipe and the number of training images."""
  flat = {key: _plain(value) for key, value in flatten(plan.given).items()}
  if not plan.optimizer.arguments:  # the key that older measurements have
    flat["optimizer.arguments"] = ""
  speed = ("data.workers", "data.check_images", "data.cache")
  return {
    "recipe": {k: v for k, v in flat.items() if k.split(".")[0] in _RECIPE and k not in speed},
    "training_images": images,
  }


def _plain(value):
  return list(value) if isinstance(value, tuple) else value
