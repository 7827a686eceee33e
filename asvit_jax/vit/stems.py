"""Stems, which turn images into patch tokens: their layers and costs."""

from flax import nnx

from asvit_jax.core.errors import InputError
from asvit_jax.core.parts import Table
from asvit_jax.vit.batch_norm import BatchNorm


class Stem(nnx.Module):
  """Base of the stems: optional layers, then a convolution whose stride equals its kernel size.

  Args:
    arch: an `Architecture`.
    inputs: number of input channels of the last convolution.
    patch: kernel size of the last convolution, in its input's pixels.
    dtype: compute type.
    rngs: random streams for the initial parameters.
  """

  def __init__(self, arch, inputs, patch, *, dtype, rngs):
    self.check(arch)
    self.proj = nnx.Conv(
      inputs,
      arch.width,
      (patch, patch),
      patch,
      padding="VALID",
      use_bias=arch.patch_bias,
      dtype=dtype,
      rngs=rngs,
    )

  @staticmethod
  def check(arch):
    """Raises InputError for an `Architecture` whose images it cannot cut into patches."""

  def before(self, images):
    """(b, height, width, 3) -> input of the last convolution."""
    return images

  def __call__(self, images):
    """(b, height, width, 3) -> (b, n, d)."""
    x = self.proj(self.before(images))
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _check_halved(arch):
  """Raises InputError for a stem that halves the image if the patch size is odd."""
  if arch.patch_size % 2:
    raise InputError(
      f"patch size {arch.patch_size} with the {arch.stem!r} stem, which halves the image before it "
      "cuts patches: set model.patch_size to an even number, or model.stem to 'patch'"
    )


def _halved_pixels(arch):
  height, width = arch.image_hw
  return (height // 2) * (width // 2)


class PatchStem(Stem):
  """A single convolution (arXiv:2010.11929)."""

  def __init__(self, arch, *, dtype, rngs):
    super().__init__(arch, 3, arch.patch_size, dtype=dtype, rngs=rngs)

  @staticmethod
  def macs(arch):
    """Multiply-accumulates per image."""
    return arch.patches * 3 * arch.patch_size**2 * arch.width


class ConvStem(Stem):
  """Two 3x3 convolutions, the first of stride 2, to a quarter and half of the width; then patches.

  Early convolutions let a transformer learn from few images (arXiv:2106.14881).
  """

  def __init__(self, arch, *, dtype, rngs):
    conv = dict(kernel_size=(3, 3), dtype=dtype, rngs=rngs)
    self.conv1 = nnx.Conv(3, arch.width // 4, strides=2, **conv)
    self.conv2 = nnx.Conv(arch.width // 4, arch.width // 2, **conv)
    super().__init__(arch, arch.width // 2, arch.patch_size // 2, dtype=dtype, rngs=rngs)

  check = staticmethod(_check_halved)

  def before(self, images):
    """The convolutions before the patch projection, see `Stem`."""
    x = nnx.gelu(self.conv1(images), approximate=False)
    return nnx.gelu(self.conv2(x), approximate=False)

  @staticmethod
  def macs(arch):
    """Multiply-accumulates per image."""
    d, half = arch.width, _halved_pixels(arch)
    convs = half * 9 * (3 * (d // 4) + (d // 4) * (d // 2))
    return convs + arch.patches * (d // 2) * (arch.patch_size // 2) ** 2 * d


class LvStem(Stem):
  """LV-ViT's stem (arXiv:2104.10858): a 7x7 convolution of stride 2, two 3x3, then patches.

  The three convolutions have 64 channels, each with batch norm and ReLU.
  """

  def __init__(self, arch, *, dtype, rngs):
    # PyTorch's padding: with a stride of 2, XLA's "SAME" is shifted by one pixel.
    conv = dict(use_bias=False, dtype=dtype, rngs=rngs)
    self.conv1 = nnx.Conv(3, 64, (7, 7), 2, padding=3, **conv)
    self.conv2 = nnx.Conv(64, 64, (3, 3), padding=1, **conv)
    self.conv3 = nnx.Conv(64, 64, (3, 3), padding=1, **conv)
    norm = dict(momentum=0.9, epsilon=1e-5, use_running_average=True, dtype=dtype, rngs=rngs)
    self.bn1, self.bn2, self.bn3 = (BatchNorm(64, **norm) for _ in range(3))
    super().__init__(arch, 64, arch.patch_size // 2, dtype=dtype, rngs=rngs)

  check = staticmethod(_check_halved)

  def before(self, images):
    """The convolutions before the patch projection, see `Stem`."""
    x = nnx.relu(self.bn1(self.conv1(images)))
    x = nnx.relu(self.bn2(self.conv2(x)))
    return nnx.relu(self.bn3(self.conv3(x)))

  @staticmethod
  def macs(arch):
    """Multiply-accumulates per image.

    The projection runs on a 14x14 grid, but the authors count it as d by 64 at every position of
    its input, which gives the same number.
    """
    return _halved_pixels(arch) * (3 * 64 * 49 + 2 * 64 * 64 * 9 + 64 * arch.width)


STEMS = Table("stem", "model.stem", {"patch": PatchStem, "conv": ConvStem, "lv": LvStem})
