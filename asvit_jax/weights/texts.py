"""Text features, one for each class, with which the features of images are compared.

A text tower, which is not needed here, makes them once. The logits of an image are

    scale · cos(features of the image, features of the text) + bias

as in CLIP (arXiv:2103.00020), which has no bias, and SigLIP (arXiv:2303.15343).
"""

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.weights.formats import npz

_NEEDED, _OPTIONAL = ("names", "features", "scale"), ("bias",)
_EXPECTED = "names (classes,), features (classes, width), scale () and perhaps bias ()"


@dataclasses.dataclass(frozen=True)
class Texts:
  """The texts of all classes.

  Attributes:
    names: names of the classes, in label order.
    features: (classes, width) float32, each row of length 1.
    scale: factor of the cosines.
    bias: added to the logits.
    source: where they come from, for errors.
  """

  names: tuple[str, ...]
  features: np.ndarray
  scale: float
  bias: float
  source: str

  @property
  def width(self):
    """Width of the features."""
    return self.features.shape[1]

  @property
  def params(self):
    """The parameters of `VisionTransformer.text_head`."""
    kernel = self.scale * self.features.T.astype(np.float64)
    bias = np.full(len(self.names), self.bias, np.float32)
    return {"kernel": kernel.astype(np.float32), "bias": bias}


def of(texts):
  """The `Texts` of a file, or of arrays.

  Args:
    texts: `Texts`; the path of an .npz file; or a dictionary of what such a file has: `names`
      (classes,), `features` (classes, width) of any length, `scale` (), the exponential of
      `logit_scale`, and perhaps `bias` (), SigLIP's `logit_bias`.

  Raises:
    InputError: no such file, or other contents.
  """
  if isinstance(texts, Texts):
    return texts
  if isinstance(texts, Mapping):
    return _checked(texts, "the texts")
  source = f"texts {storage.path(texts)}"
  if storage.path(texts).is_dir():
    raise InputError(f"{source}: it is a directory; expected an .npz file of {_EXPECTED}")
  if not storage.path(texts).is_file():
    raise InputError(f"{source}: no such file; expected an .npz file of {_EXPECTED}")
  return _checked(npz.arrays(texts, source, texts=True), source)


def check_features(head, source):
  """Raises InputError unless `Architecture.head` gives features that can be compared with texts."""
  if head == "classifier":
    raise InputError(
      f"{source} has a classifier, and no features to compare with those of texts: leave out the "
      "texts (--zero-shot), or give the image tower of CLIP or SigLIP"
    )


def _checked(values, source):
  """`Texts` of a dictionary of arrays."""
  missing = [name for name in _NEEDED if name not in values]
  unknown = [name for name in values if name not in (*_NEEDED, *_OPTIONAL)]
  if missing or unknown:
    what = [f"without {', '.join(missing)}"] if missing else []
    what += [f"with {', '.join(shown(name, 60) for name in unknown[:5])}"] if unknown else []
    raise InputError(f"{source}: {' and '.join(what)}: expected {_EXPECTED}, and nothing else")
  names = _names(values["names"], source)
  features = _features(values["features"], source)
  if len(names) != len(features):
    raise InputError(
      f"{source}: {len(names):,} names for {len(features):,} rows of features: expected one for "
      "each class"
    )
  scale, bias = (_number(values.get(name, 0.0), name, source) for name in ("scale", "bias"))
  if not scale > 0:
    raise InputError(
      f"{source}: scale {scale:g} is not above 0: expected the exponential of logit_scale"
    )
  lengths = np.linalg.norm(features, axis=1, keepdims=True)
  if not lengths.all():
    name = names[int(np.argmin(lengths))]
    raise InputError(f"{source}: the features of {shown(name, 60)} are all 0: make them again")
  features = (features / lengths).astype(np.float32)
  return Texts(names, features, scale, bias, source)


def _names(values, source):
  array = np.asarray(values)
  if array.ndim != 1 or not all(isinstance(name, str) and name.strip() for name in array):
    raise InputError(
      f"{source}: names are {array.dtype} of shape {array.shape}: expected a text for each class, "
      "none empty"
    )
  names = tuple(map(str, array))
  name, count = collections.Counter(names).most_common(1)[0] if names else ("", 0)
  if count > 1:
    labels = ", ".join(str(i) for i, other in enumerate(names) if other == name)
    raise InputError(
      f"{source}: {shown(name, 60)} is the name of classes {labels[:60]}: give each class its own"
    )
  return names


def _features(values, source):
  array = _numeric(values)
  if array is None or array.ndim != 2 or not array.size:
    raise InputError(
      f"{source}: features are not numbers of shape (classes, width): expected a row for each class"
    )
  if not np.isfinite(array).all():
    row, column = np.argwhere(~np.isfinite(array))[0]
    raise InputError(
      f"{source}: features are not finite, {array[row, column]} at [{row}, {column}]: make them "
      "again"
    )
  return array


def _number(value, name, source):
  array = _numeric(value)
  if array is None or array.size != 1 or not np.isfinite(array).all():
    raise InputError(f"{source}: {name} {shown(value, 60)} is not a finite number: expected one")
  return float(array.reshape(()))


def _numeric(values):
  """Numbers as a float64 array; None for anything else."""
  try:
    array = np.asarray(values)
    return None if array.dtype.kind in "bUSOMmc" else array.astype(np.float64)
  except (TypeError, ValueError):
    return None
