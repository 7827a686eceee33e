"""RandAugment (arXiv:1909.13719) on PIL images: a few random operations of random strength.

Operations, ranges and probabilities are those of timm's `rand-m9-mstd0.5-inc1`, which DeiT trains
with; "inc1" means that every operation gets stronger with the magnitude.
"""

from PIL import Image, ImageEnhance, ImageOps

from asvit_jax.data.preprocessing import IMAGENET_MEAN

PROBABILITY = 0.5  # of applying an operation that was drawn
MAX_MAGNITUDE = 10.0


def fill_of(mean):
  """The RGB colour, 0 to 255, for pixels from outside the image: the network's mean."""
  return tuple(round(255 * channel) for channel in mean)


FILL = fill_of(IMAGENET_MEAN)  # 124, 116, 104


def rand_augment(image, rng, magnitude=9.0, deviation=0.5, operations=2, fill=FILL):
  """Applies random operations, one after the other.

  Each is drawn uniformly from `OPERATIONS`, with replacement, and applied with probability 0.5 at a
  magnitude drawn for it alone.

  Args:
    image: PIL RGB image.
    rng: np.random.Generator.
    magnitude: mean of the magnitude's normal distribution, in [0, 10].
    deviation: standard deviation of the magnitude; draws are clipped to [0, 10].
    operations: number of operations to draw.
    fill: fill colour, `fill_of` of the network's mean, as in timm.

  Returns:
    PIL RGB image of the same size.
  """
  choices = tuple(OPERATIONS.values())
  for choice in rng.integers(len(choices), size=operations):
    if rng.random() < PROBABILITY:
      drawn = min(max(rng.normal(magnitude, deviation), 0.0), MAX_MAGNITUDE)
      image = choices[choice](image, drawn / MAX_MAGNITUDE, rng, fill)
  return image


def _auto_contrast(image, magnitude, rng, fill=FILL):
  return ImageOps.autocontrast(image)


def _equalize(image, magnitude, rng, fill=FILL):
  return ImageOps.equalize(image)


def _invert(image, magnitude, rng, fill=FILL):
  return ImageOps.invert(image)


def _posterize(image, magnitude, rng, fill=FILL):
  bits = 4 - int(4 * magnitude)  # bits to keep; 0 gives black, which PIL's own posterize refuses
  step = 2 ** (8 - bits)
  return _map_values(image, [value // step * step for value in range(256)])


def _solarize(image, magnitude, rng, fill=FILL):
  return ImageOps.solarize(image, 256 - int(256 * magnitude))  # inverts values from this one up


def _solarize_add(image, magnitude, rng, fill=FILL):
  added = int(110 * magnitude)
  dark = [min(255, value + added) for value in range(128)]
  return _map_values(image, dark + list(range(128, 256)))


def _map_values(image, table):
  return image.point(table * len(image.getbands()))


def _enhance(enhancer):
  def operation(image, magnitude, rng, fill=FILL):
    return enhancer(image).enhance(1 + _signed(0.9 * magnitude, rng))  # 1 changes nothing

  return operation


def _rotate(image, magnitude, rng, fill=FILL):
  degrees = _signed(30 * magnitude, rng)
  return image.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=fill)


def _shear_x(image, magnitude, rng, fill=FILL):
  return _affine(image, fill, (1, _signed(0.3 * magnitude, rng), 0, 0, 1, 0))


def _shear_y(image, magnitude, rng, fill=FILL):
  return _affine(image, fill, (1, 0, 0, _signed(0.3 * magnitude, rng), 1, 0))


def _translate_x(image, magnitude, rng, fill=FILL):
  return _affine(image, fill, (1, 0, _signed(0.45 * magnitude * image.width, rng), 0, 1, 0))


def _translate_y(image, magnitude, rng, fill=FILL):
  return _affine(image, fill, (1, 0, 0, 0, 1, _signed(0.45 * magnitude * image.height, rng)))


def _affine(image, fill, coefficients):
  """Samples output pixel (x, y) from (a·x + b·y + c, d·x + e·y + f)."""
  return image.transform(
    image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC, fillcolor=fill
  )


def _signed(value, rng):
  return value if rng.random() < 0.5 else -value


# Functions of (image, magnitude in [0, 1], rng, fill).
OPERATIONS = {
  "auto_contrast": _auto_contrast,
  "equalize": _equalize,
  "invert": _invert,
  "rotate": _rotate,
  "posterize": _posterize,
  "solarize": _solarize,
  "solarize_add": _solarize_add,
  "color": _enhance(ImageEnhance.Color),
  "contrast": _enhance(ImageEnhance.Contrast),
  "brightness": _enhance(ImageEnhance.Brightness),
  "sharpness": _enhance(ImageEnhance.Sharpness),
  "shear_x": _shear_x,
  "shear_y": _shear_y,
  "translate_x": _translate_x,
  "translate_y": _translate_y,
}
