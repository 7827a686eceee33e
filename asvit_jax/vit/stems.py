"""Stems: images to patch tokens. Each knows its layers and what they cost."""

from flax import nnx

from asvit_jax.core.errors import InputError
from asvit_jax.core.parts import Table
from asvit_jax.vit.batch_norm import BatchNorm

STEMS = Table(
  "stem",
  "model.stem",
  {
    "patch": "asvit_jax.vit.stems:PatchStem",
    "conv": "asvit_jax.vit.stems:ConvStem",
    "lv": "asvit_jax.vit.stems:LvStem",
  },
)


class Stem(nnx.Module):
  """What stems share: small layers, then a convolution whose stride is its size.

  Args:
    arch: an `Architecture`.
    inputs: channels that the last convolution sees.
    patch: its size, in the pixels that it sees.
    dtype: compute type.
    rngs: where the initial parameters come from.
  """

  def __init__(self, arch, inputs, patch, *, dtype, rngs):
    self.check(arch)
    self.proj = nnx.Conv(
      inputs, arch.width, (patch, patch), patch, padding="VALID", dtype=dtype, rngs=rngs
    )

  @staticmethod
  def check(arch):
    """Raises InputError for an `Architecture` that it cannot cut into patches."""

  def before(self, images):
    """(b, height, width, 3) -> what the last convolution sees."""
    return images

  def __call__(self, images):
    """(b, height, width, 3) -> (b, n, d)."""
    x = self.proj(self.before(images))
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _check_halved(arch):
  """Of stems that halve the image first."""
  if arch.patch_size % 2:
    raise InputError(
      f"patch size {arch.patch_size} with the {arch.stem!r} stem, which halves the image before it "
      "cuts patches: set model.patch_size to an even number, or model.stem to 'patch'"
    )


def _halved_pixels(arch):
  height, width = arch.image_hw
  return (height // 2) * (width // 2)


class PatchStem(Stem):
  """One convolution (arXiv:2010.11929)."""

  def __init__(self, arch, *, dtype, rngs):
    super().__init__(arch, 3, arch.patch_size, dtype=dtype, rngs=rngs)

  @staticmethod
  def macs(arch):
    """Multiply-accumulates of an image."""
    return arch.patches * 3 * arch.patch_size**2 * arch.width


class ConvStem(Stem):
  """Two of 3x3 before it, the first of stride 2, to a quarter and a half of the width.

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
    """Multiply-accumulates of an image."""
    d, half = arch.width, _halved_pixels(arch)
    convs = half * 9 * (3 * (d // 4) + (d // 4) * (d // 2))
    return convs + arch.patches * (d // 2) * (arch.patch_size // 2) ** 2 * d


class LvStem(Stem):
  """7x7 of stride 2 and two of 3x3 before it, 64 channels, each with batch norm and ReLU.

  LV-ViT's (arXiv:2104.10858).
  """

  def __init__(self, arch, *, dtype, rngs):
    # Padded as PyTorch pads: XLA's "SAME" is one pixel off where the stride is 2.
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
    """Multiply-accumulates of an image.

    The projection runs on a grid of 14x14, but the authors count it as d by 64 at every position
    before it, which is the same number.
    """
    return _halved_pixels(arch) * (3 * 64 * 49 + 2 * 64 * 64 * 9 + 64 * arch.width)
