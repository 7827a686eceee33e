"""Reads the steps from an image to the network's input in transformers' preprocessor_config.json.

They are resizing, a centre crop, `pixels * rescale_factor` and `(pixels - image_mean) / image_std`.
Every step is interpreted exactly as in transformers, or refused by name.
"""

import math

from asvit_jax.core import schema
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.data.preprocessing import LEAST_CROP_RATIO

NAME = "preprocessor_config.json"
# PIL's filters, in the order of their numbers.
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
# Processors for which a single number is the shorter side, not both.
_BY_SHORTER_SIDE = ("Bit", "CLIP", "ConvNext", "Chinese", "LeViT", "Levit", "PoolFormer")
_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
# Further steps, besides unknown `do_…` keys; unsupported if they are on.
_OTHER_STEPS = ("rescale_offset", "offset", "size_divisor", "crop_size_divisor")

_SIDE = schema.integer(1, 1 << 16)
_SIDES = schema.table(
  dict.fromkeys(("height", "width", "shortest_edge", "longest_edge"), _SIDE), others=_SIDE
)
_SIZE = schema.either(_SIDE, schema.array(_SIDE, 2, 2), _SIDES)
_CHANNELS = schema.either(schema.number(), schema.array(schema.number(), 3, 3))
SCHEMA = schema.table(
  {
    **dict.fromkeys(_STEPS, schema.BOOLEAN),
    "image_mean": _CHANNELS,
    "image_std": _CHANNELS,
    "rescale_factor": schema.number(1e-9, 1e9),
    "resample": schema.either(schema.integer(0, len(_FILTERS) - 1), schema.text(64)),
    "size": _SIZE,
    "crop_size": _SIZE,
    "crop_pct": schema.number(LEAST_CROP_RATIO, 1),
    "default_to_square": schema.BOOLEAN,
    "image_processor_type": schema.text(256),
    "feature_extractor_type": schema.text(256),
  }
)


def fields(processor, source):
  """The fields of `Preprocessing` in the content of a preprocessor_config.json.

  Args:
    processor: the content of the file without nulls; {} for none.
    source: the weights, for errors.

  Raises:
    InputError: a value of another type, or an unsupported step.
  """
  if not processor:
    return {}
  processor = in_whole_numbers(processor, ("size", "crop_size", "resample"))
  schema.check(processor, SCHEMA, f"{source}: its {NAME}")
  others = {k for k in processor if k.startswith("do_")} - {*_STEPS} | {*_OTHER_STEPS}
  for key in sorted(others & processor.keys()):
    if processor[key]:
      raise _refused(key, processor[key], "an unknown step", source)
  return _scale(processor, source) | _resample(processor, source) | _cut(processor, source)


def in_whole_numbers(values, keys):
  """A JSON object with floats such as 32.0 converted to integers at some keys, nested ones too.

  Args:
    values: the object.
    keys: the keys to convert.
  """
  return {key: _whole(value) if key in keys else value for key, value in values.items()}


def _whole(value):
  if isinstance(value, float) and value.is_integer():
    return int(value)
  if isinstance(value, list):
    return [_whole(item) if isinstance(item, float) else item for item in value]
  if isinstance(value, dict):
    return {k: _whole(item) if isinstance(item, float) else item for k, item in value.items()}
  return value


def _scale(processor, source):
  """The mean and std of pixels in [0, 1] equivalent to rescaling and normalising."""
  # For pixels x in [0, 1]: x · 255 · rescale_factor, then (x - image_mean) / image_std.
  factor = 255.0 * processor.get("rescale_factor", 1 / 255)
  factor = factor if processor.get("do_rescale", True) else 255.0
  mean, std = (processor.get(f"image_{name}") for name in ("mean", "std"))
  if not processor.get("do_normalize", True):
    mean, std = 0.0, 1.0
  if mean is None or std is None:
    if not math.isclose(factor, 1.0, rel_tol=1e-6):
      key = "rescale_factor" if processor.get("do_rescale", True) else "do_rescale"
      why = "without image_mean and image_std, its result is undefined"
      raise _refused(key, processor.get(key), why, source)
    given = {"mean": mean, "std": std}
    return {k: _three(v) for k, v in given.items() if v is not None}
  mean, std = _three(mean), _three(std)
  if not math.isclose(factor, 1.0, rel_tol=1e-6):
    mean, std = ([value / factor for value in values] for values in (mean, std))
  if max(mean) > 1 or max(std) > 10:
    raise _refused(
      "image_mean",
      processor.get("image_mean"),
      "for pixels in [0, 1] it would be at most 1; if it is on the scale of 0 to 255, set "
      "do_rescale to false there, or divide it and image_std by 255",
      source,
    )
  return {"mean": mean, "std": std}


def _three(value):
  return list(value) if isinstance(value, list) else [value] * 3


def _resample(processor, source):
  resample = processor.get("resample")
  if resample is None:
    return {}
  name = _FILTERS[resample] if isinstance(resample, int) else resample.rpartition(".")[2].lower()
  if name not in _FILTERS:
    raise _refused(
      "resample", resample, f"expected 0 to 5, or one of {', '.join(_FILTERS)}", source
    )
  return {"interpolation": name}


def _cut(processor, source):
  """The crop mode and crop ratio of the resizing and cropping steps."""
  size, crop = processor.get("size"), processor.get("crop_size")
  cropped = processor.get("do_center_crop", False)
  if not processor.get("do_resize", True):
    if cropped:
      raise _refused("do_resize", False, "cropping without resizing is not supported", source)
    log(
      f"{source}: its {NAME} has do_resize false: whole images of another size are resized anyway"
    )
    return {"crop_mode": "squash", "crop_ratio": 1.0}
  if size is None:
    return {}
  if cropped and crop is None:
    raise _refused("do_center_crop", True, "crop_size is missing", source)
  mode, resized = _resized(processor, size, source)
  if "crop_pct" in processor:
    return _cut_as_convnext(processor["crop_pct"], mode, resized[0], source)
  ratio = 1.0
  if cropped:
    sides = _sides(crop)
    if sides is None or (mode == "center" and sides[0] != sides[1]):
      raise _refused("crop_size", crop, "expected height and width, of a square", source)
    ratios = {side / whole for side, whole in zip(sides, resized, strict=True)}
    ratio = max(ratios)
    if len(ratios) > 1 or ratio > 1:
      raise _refused(
        "crop_size", crop, f"it is not a part of size {size} with the same shape", source
      )
    if ratio < LEAST_CROP_RATIO:
      raise _refused(
        "crop_size", crop, f"expected at least {LEAST_CROP_RATIO} of size {size}", source
      )
  return {"crop_mode": mode, "crop_ratio": ratio}


def _cut_as_convnext(share, mode, side, source):
  """The crop mode and ratio of ConvNeXt's `crop_pct`, which large images ignore."""
  if mode != "center":
    raise _refused("crop_pct", share, "expected shortest_edge as size with it", source)
  if side >= 384:
    return {"crop_mode": "squash", "crop_ratio": 1.0}
  return {"crop_mode": "center", "crop_ratio": side / int(side / share)}


def _resized(processor, size, source):
  """(crop mode, (height, width) after resizing); equal sides stand for the shorter side."""
  if isinstance(size, int):
    kind = processor.get("image_processor_type", processor.get("feature_extractor_type", ""))
    shorter = not processor.get("default_to_square", not kind.startswith(_BY_SHORTER_SIDE))
    return ("center" if shorter else "squash"), (size, size)
  if isinstance(size, dict) and size.keys() == {"shortest_edge"}:
    return "center", (size["shortest_edge"],) * 2
  sides = _sides(size)
  if sides is None:
    why = "expected height and width, or shortest_edge alone, or a number"
    raise _refused("size", size, why, source)
  return "squash", sides


def _sides(size):
  """(height, width) of a size; None for other forms, such as two numbers of unknown order."""
  if isinstance(size, int):
    return size, size
  if isinstance(size, list):
    return tuple(size) if size[0] == size[1] else None
  return (size["height"], size["width"]) if size.keys() == {"height", "width"} else None


def _refused(key, value, why, source):
  return InputError(
    f"{source}: {key} {value!r} of its {NAME} is not supported ({why}): correct it there, or take "
    "it out and set config.data.mean, std, crop_ratio, crop_mode and interpolation"
  )
