"""Validation of images that users pass in: the one place that defines a valid batch.

Pixels are uint8. Floats are images that were already normalised as by `Preprocessing.normalize`.
Anything else is refused: it would run and give meaningless numbers.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps

from asvit_jax.core.errors import InputError
from asvit_jax.vit import scaling

FLOATS = ("float32", "float64", "bfloat16", "float16")
_BATCH = 64  # batch size for splitting large arrays
_DEEP = ("I", "F")  # modes of PIL without a known range of values

_ADVICE = {
  "uint16": "16 bits: (images // 257).astype(np.uint8) where white is 65,535",
  "bool": "a mask: 255 * images.astype(np.uint8) makes it black and white",
  "int8": "negative where pixels are above 127: images.view(np.uint8) if they were stored so",
}


def checked(given, arch, preprocessing, pixels_only=False):
  """Validates a batch of images and converts it for the programs.

  Under `jit` only type and shape are checked. For concrete floats the range is checked, too, see
  `scaling`; for floats on a device this fetches a few numbers, and so waits for the array.

  Args:
    given: (b, h, w, 3) uint8 pixels, or normalised floats of a type in `FLOATS`: an array of NumPy,
      JAX or any library that NumPy can read, in any layout and byte order; or a list of (h, w, 3)
      arrays or of PIL images of that size.
    arch: the `Architecture` that will run them.
    preprocessing: the `Preprocessing` by which floats were normalised.
    pixels_only: whether to refuse floats.

  Returns:
    (b, h, w, 3) array of NumPy or JAX, in native byte order.

  Raises:
    InputError: anything else, no image, or values that cannot be normalised pixels.
  """
  images = _array(given, arch)
  _check_type(images, arch, pixels_only)
  _check_shape(images, arch, pixels_only)
  if images.dtype != np.uint8 and not isinstance(images, jax.core.Tracer):
    scaling.check(images, preprocessing)
  return images


def normalized(images, preprocessing):
  """The network's input: normalises pixels and returns floats unchanged."""
  if jnp.issubdtype(images.dtype, jnp.floating):
    return images
  return preprocessing.normalize(images)


def batches(given, arch, preprocessing):
  """Yields batches of images, for functions that process many.

  Args:
    given: as for `checked`; or an iterable of batches, as of `data.loader.eval_batches`: arrays
      (b, h, w, 3) or {"image": images}, with "valid" (b,) bool if some rows are padding.
    arch: as for `checked`.
    preprocessing: as for `checked`.

  Yields:
    {"image": (b, h, w, 3) array, "valid": (b,) bool NumPy array}.

  Raises:
    InputError: as for `checked`; or there are no images at all.
  """
  count = 0
  for batch in _each(given, arch, preprocessing):
    count += int(batch["valid"].sum())
    yield batch
  if not count:
    raise InputError("no images: expected at least one")


def _each(given, arch, preprocessing):
  if isinstance(given, dict):
    given = [given]
  if isinstance(given, (list, tuple)) and given and _are_batches(given[0]):
    given = iter(given)
  if not hasattr(given, "__next__") and (_is_data(given) or not hasattr(given, "__iter__")):
    yield from _parts(_known(checked(given, arch, preprocessing)))
    return
  for batch in given:
    if not _are_batches(batch):
      raise InputError(
        f"a batch of images is {_kind(batch)}: expected batches, {{'image': (b, h, w, 3) uint8}}; "
        "single images are to be one array, np.stack(list(images))"
      )
    yield read_batch(batch, arch, preprocessing)


def _is_data(given):
  """Whether an iterable is itself an array, or a list that stands for one."""
  sequence = (list, tuple, str, bytes, bytearray, memoryview, os.PathLike, set, frozenset)
  return isinstance(given, sequence) or hasattr(given, "shape") or hasattr(given, "__array__")


def _are_batches(first):
  return isinstance(first, dict) or len(getattr(first, "shape", ())) == 4


def read_batch(batch, arch, preprocessing):
  """One of the batches that `batches` takes, in the form that it yields."""
  if not isinstance(batch, dict):
    batch = {"image": batch}
  if "image" not in batch:
    keys = ", ".join(map(repr, batch)) or "none"
    raise InputError(f"a batch of images has no 'image': its keys are {keys}")
  images = _known(checked(batch["image"], arch, preprocessing))
  valid = np.asarray(batch.get("valid", np.ones(len(images), bool)))
  if valid.shape != images.shape[:1] or not np.isin(valid, (0, 1)).all():
    raise InputError(
      f"'valid' of a batch is of shape {valid.shape}, {valid.dtype}: expected a bool for each of "
      f"its {len(images)} images"
    )
  return {"image": images, "valid": valid.astype(bool)}


def _known(images):
  """Returns the images; raises InputError for traced ones, whose values are unknown."""
  if isinstance(images, jax.core.Tracer):
    raise InputError(
      "images are traced, as inside of jax.jit, jax.vmap or jax.grad: their values are needed: "
      "hand them in outside"
    )
  return images


def _parts(images):
  """Splits an array into batches of equal size; the last is padded."""
  size = min(_BATCH, len(images))
  for start in range(0, len(images), size):
    part = np.asarray(images[start : start + size])
    padded = np.pad(part, ((0, size - len(part)), (0, 0), (0, 0), (0, 0)))
    yield {"image": padded, "valid": np.arange(size) < len(part)}


def _array(given, arch):
  """The images as a NumPy array in native byte order, or unchanged if they are a JAX array."""
  if isinstance(given, jax.Array):  # includes tracers
    return given
  if isinstance(given, (list, tuple)):
    given = _stacked(given, arch)
  elif isinstance(given, Image.Image):
    raise InputError("images are a single PIL image: expected a batch, a list of them: [image]")
  elif isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
    raise InputError("images are a masked array: fill what is masked first, images.filled(0)")
  elif not isinstance(given, (np.ndarray, np.generic)):
    given = _of_library(given)
  images = np.asarray(given)
  return images if images.dtype.isnative else images.astype(images.dtype.newbyteorder("="))


def _of_library(given):
  """Converts an array of another library, or a buffer, to NumPy."""
  bare = isinstance(given, (str, bytes, bytearray, os.PathLike, dict, set)) or given is None
  if bare or not (hasattr(given, "__array__") or isinstance(given, memoryview)):
    raise InputError(f"images are {_kind(given)}: expected an array, (b, h, w, 3) uint8")
  try:
    return np.asarray(given)
  except Exception as error:  # the reason depends on the library: a device, a gradient, a type
    raise InputError(
      f"images are {_kind(given)}, which NumPy cannot take ({' '.join(str(error).split())[:150]}): "
      "hand in a NumPy array; of PyTorch images.detach().cpu().numpy()"
    ) from error


def _stacked(given, arch):
  """Stacks a list of images to an array."""
  if not given:
    raise InputError("no images: expected at least one")
  if any(isinstance(image, (str, os.PathLike)) for image in given):
    raise InputError("images are a list of paths: `network.read(paths)` reads image files")
  if any(isinstance(image, Image.Image) for image in given):
    return np.stack([_of_pil(image, arch) for image in given])
  if any(isinstance(image, jax.core.Tracer) for image in given):
    return jnp.stack(given)
  try:
    return np.stack([np.asarray(image) for image in given])
  except Exception as error:  # ragged, or not readable by NumPy
    raise InputError(
      f"images are a list that makes no array ({' '.join(str(error).split())[:150]}): expected "
      f"arrays of one shape, {arch.image_shape}"
    ) from error


def _of_pil(image, arch):
  """(h, w, 3) uint8 from a PIL image, which must have the right size."""
  if not isinstance(image, Image.Image):
    raise InputError(f"a list of images has PIL images and {_kind(image)}: expected one kind")
  if image.mode in _DEEP or image.mode.startswith("I;16"):
    raise InputError(
      f"a PIL image has mode {image.mode}, whose values have no range of their own: store it as a "
      "file, which `network.read` reads, or scale it to 8 bits"
    )
  image = ImageOps.exif_transpose(image)
  height, width = arch.image_hw
  if image.size != (width, height):
    raise InputError(
      f"a PIL image is {image.height} pixels high and {image.width} wide: expected {height} and "
      f"{width}; `network.read(paths)` crops and resizes image files as the network wants them"
    )
  return np.asarray(image.convert("RGB"))


def _check_type(images, arch, pixels_only):
  kind = str(images.dtype)
  if kind == "uint8" or (kind in FLOATS and not pixels_only):
    return
  shape = f"images of shape {images.shape}, {kind}: expected {_expected(arch)}"
  if pixels_only:
    raise InputError(f"{shape}, uint8; pixels are not normalised before")
  advice = _ADVICE.get(kind)
  if advice is None and jnp.issubdtype(images.dtype, jnp.integer):
    advice = "where values are 0 to 255, images.astype(np.uint8)"
  raise InputError(
    f"{shape}, uint8 pixels or normalised floats ({', '.join(FLOATS)})"
    + (f"; {advice}" if advice else "")
  )


def _check_shape(images, arch, pixels_only):
  shape, expected = images.shape, arch.image_shape
  if len(shape) != 4 or shape[1:] != expected:
    kind, needed = (f", {images.dtype}", ", uint8") if pixels_only else ("", "")
    advice = _advice(shape, expected)
    raise InputError(
      f"images of shape {shape}{kind}: expected {_expected(arch)}{needed}"
      + (f"; {advice}" if advice else "")
    )
  if not len(images):
    raise InputError("no images: expected at least one")


def _advice(shape, expected):
  """What to do about a wrong shape, or ""."""
  height, width, _ = expected
  known = {
    expected: "this is one image: add the axis of the batch, images[None]",
    (3, height, width): "this is one image with its channels first: "
    "images.transpose(1, 2, 0)[None] puts them last",
    (height, width): "this is one grey image: np.repeat(images[None, ..., None], 3, axis=-1)",
  }
  if shape in known:
    return known[shape]
  rest = shape[1:]
  if len(shape) in (3, 4) and rest in ((height, width), (height, width, 1)):
    grey = "images" if len(shape) == 4 else "images[..., None]"
    return f"these are grey: np.repeat({grey}, 3, axis=-1) makes three channels"
  if rest == (3, height, width):
    return f"these are (b, 3, {height}, {width}): images.transpose(0, 2, 3, 1) puts channels last"
  if rest == (height, width, 4):
    return "these have four channels: images[..., :3] leaves out the last, of RGBA the opacity"
  if len(shape) == 5 and shape[2:] == expected:
    return f"make one batch of it: images.reshape(-1, {height}, {width}, 3)"
  if len(shape) == 4 and (shape[-1] == 3 or shape[1] == 3):
    return "they are of another size: `network.read(paths)` crops and resizes image files"
  return ""


def _expected(arch):
  return f"(b, {', '.join(map(str, arch.image_shape))})"


def _kind(given):
  """A description of an object's type, with advice if there is any."""
  kind = type(given)
  name = "None" if given is None else f"of type {kind.__module__}.{kind.__qualname__}"
  name = name.replace("builtins.", "")
  if isinstance(given, (str, os.PathLike)):
    return f"{name} (`network.read(path)` reads image files)"
  if isinstance(given, dict):
    return f"{name} (hand in its array: images['image'])"
  if hasattr(given, "__next__"):
    return f"{name} (np.stack(list(images)) makes an array)"
  return name
