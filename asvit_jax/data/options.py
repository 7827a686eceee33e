"""The options of a data set: the section `data` of a config, with types.

Grain sends them to worker processes, which import this module and so must not import JAX by it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Data:
  """Which images, and how a training image is changed on the host.

  Attributes:
    name: kind of source, see `data.sources.SOURCES`; the next eight say where its images are.
    crop_scale: range of the random crop's area; (1.0, 1.0) for the centre crop. It and the next
      nine are the augmentation, see `data.loader`.
    crop_ratio: with the next four, what the config sets of the `Preprocessing`; None where it
      leaves a value to the weights.
    cache: directory for the lists of a folder's files; "" for that of the run.
    workers: processes that decode; 0 for threads.
    check_images: number of images to decode before training starts.
    max_bad_images: number of unreadable images to leave out, of a split and host.
    others: keys that somebody added for a source of their own; they read as attributes, too.
  """

  name: str
  dir: str
  classes: str
  train_split: str
  eval_split: str
  train_labels: str
  eval_labels: str
  exif_orientation: bool
  sampler: str
  crop_scale: tuple[float, float]
  hflip: bool
  shift: int
  rand_augment: float
  rand_augment_deviation: float
  rand_augment_operations: int
  color_jitter: float
  repeats: int
  crop_ratio: float | None
  mean: tuple[float, ...] | None
  std: tuple[float, ...] | None
  interpolation: str | None
  crop_mode: str | None
  cache: str
  workers: int
  check_images: int
  max_bad_images: int
  others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __getattr__(self, name):
    others = vars(self).get("others", {})  # nothing is there yet while it is unpickled
    if name not in others:
      raise AttributeError(f"config.data has no key {name!r}")
    return others[name]

  def get(self, name, default=None):
    """The value of a key, as that of a `ConfigDict`."""
    return getattr(self, name, default)
