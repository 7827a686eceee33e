"""The vision transformer: parameters and the layers around them.

The modules hold parameters and act on the last axis only, so they do not know how tokens are
arranged. What mixes tokens is handed to a block as a function of (q, k, v); `executions.py` chooses
it. Module names follow timm's, which keeps `weights.py` a plain table.
"""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
from flax import nnx

from asvit_jax import pruning
from asvit_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Architecture:
  """The dimensions of a network. `prune_before` counts blocks from 0; empty for a dense network."""

  width: int
  heads: int
  depth: int = 12
  mlp_ratio: int = 4
  image_size: int = 224
  patch_size: int = 16
  classes: int = 1000
  stem: str = "patch"  # one convolution; "conv": two small ones before it; "lv": LV-ViT's
  norm_epsilon: float = 1e-6
  qkv_bias: bool = True
  residual_divisor: float = 1.0  # of what a block adds to its tokens
  aux_head: bool = False  # a second head, for patch tokens, helps predict
  prune_before: tuple[int, ...] = (4, 7, 10)

  def __post_init__(self):
    """Raises InputError where the dimensions do not fit each other."""
    if self.image_size < 1 or self.patch_size < 1 or self.image_size % self.patch_size:
      raise InputError(
        f"image size {self.image_size} is not a multiple of patch size {self.patch_size}: "
        "set model.image_size or model.patch_size so that whole patches tile the image"
      )
    if self.classes < 1:
      raise InputError(f"{self.classes} classes: model.num_classes must be at least 1")
    if self.width % self.heads:
      raise InputError(f"width {self.width} does not divide into {self.heads} heads")
    stages = (0, *self.prune_before, self.depth)
    if any(a >= b for a, b in itertools.pairwise(stages)):
      raise InputError(
        f"prune_before {self.prune_before}: expected increasing blocks between 1 and "
        f"{self.depth - 1}"
      )

  @property
  def patches(self):
    """Number of patch tokens, the class token not counted."""
    return (self.image_size // self.patch_size) ** 2

  @property
  def dense(self):
    """The same network without pruning."""
    return dataclasses.replace(self, prune_before=())


# Published for LV-ViT (arXiv:2104.10858, table 1), in both sizes.
_LVVIT = dict(
  mlp_ratio=3, stem="lv", norm_epsilon=1e-5, qkv_bias=False, residual_divisor=2.0, aux_head=True
)

VARIANTS = {
  # DeiT (arXiv:2012.12877, table 1).
  "deit_t": Architecture(width=192, heads=3),
  "deit_s": Architecture(width=384, heads=6),
  "deit_b": Architecture(width=768, heads=12),
  "lvvit_s": Architecture(width=384, heads=6, depth=16, prune_before=(5, 9, 13), **_LVVIT),
  "lvvit_m": Architecture(width=512, heads=8, depth=20, prune_before=(6, 11, 16), **_LVVIT),
  # For the embedded data set: 64 tokens of 6x6 pixels.
  "digits": Architecture(
    width=64,
    heads=2,
    depth=6,
    mlp_ratio=2,
    image_size=48,
    patch_size=6,
    classes=10,
    stem="conv",
    prune_before=(1, 2, 4),
  ),
}

_truncated_normal = nnx.initializers.truncated_normal(0.02)


class BatchNorm(nnx.BatchNorm):
  """Batch norm whose running variance is PyTorch's, the unbiased one; Flax keeps the biased."""

  def __call__(self, x):
    """(..., channels) -> (..., channels); a training forward also moves the running statistics."""
    if self.use_running_average:
      return super().__call__(x)
    before = self.momentum * self.var[...]
    y = super().__call__(x)
    count = x.size // x.shape[-1]
    if self.axis_name is not None:
      count = jax.lax.psum(count, self.axis_name)
    self.var[...] = before + (self.var[...] - before) * count / (count - 1)
    return y


class PatchEmbed(nnx.Module):
  """Images to patch tokens by one convolution (`stem="patch"`), or after small ones.

  "conv": two of 3x3, the first of stride 2, to a quarter and a half of the width; early
  convolutions let a transformer learn from few images (arXiv:2106.14881). "lv": 7x7 of stride 2 and
  two of 3x3, 64 channels, each with batch norm and ReLU (arXiv:2104.10858).
  """

  def __init__(self, arch: Architecture, *, dtype, rngs):
    patch, inputs = arch.patch_size, 3
    if arch.stem == "conv":
      conv = dict(kernel_size=(3, 3), dtype=dtype, rngs=rngs)
      self.conv1 = nnx.Conv(3, arch.width // 4, strides=2, **conv)
      self.conv2 = nnx.Conv(arch.width // 4, arch.width // 2, **conv)
      patch, inputs = patch // 2, arch.width // 2
    elif arch.stem == "lv":
      # Padded as PyTorch pads: XLA's "SAME" is one pixel off where the stride is 2.
      conv = dict(use_bias=False, dtype=dtype, rngs=rngs)
      self.conv1 = nnx.Conv(3, 64, (7, 7), 2, padding=3, **conv)
      self.conv2 = nnx.Conv(64, 64, (3, 3), padding=1, **conv)
      self.conv3 = nnx.Conv(64, 64, (3, 3), padding=1, **conv)
      norm = dict(momentum=0.9, epsilon=1e-5, use_running_average=True, dtype=dtype, rngs=rngs)
      self.bn1, self.bn2, self.bn3 = (BatchNorm(64, **norm) for _ in range(3))
      patch, inputs = patch // 2, 64
    self.proj = nnx.Conv(
      inputs, arch.width, (patch, patch), patch, padding="VALID", dtype=dtype, rngs=rngs
    )
    self.stem = arch.stem

  def __call__(self, images):
    """(b, height, width, 3) -> (b, n, d)."""
    x = images
    if self.stem == "conv":
      x = nnx.gelu(self.conv1(x), approximate=False)
      x = nnx.gelu(self.conv2(x), approximate=False)
    elif self.stem == "lv":
      x = nnx.relu(self.bn1(self.conv1(x)))
      x = nnx.relu(self.bn2(self.conv2(x)))
      x = nnx.relu(self.bn3(self.conv3(x)))
    x = self.proj(x)
    return x.reshape(x.shape[0], -1, x.shape[-1])


class Attention(nnx.Module):
  """Projections around the function that mixes tokens."""

  def __init__(self, arch: Architecture, *, dtype, rngs):
    linear = dict(kernel_init=_truncated_normal, dtype=dtype, rngs=rngs)
    self.qkv = nnx.Linear(arch.width, 3 * arch.width, use_bias=arch.qkv_bias, **linear)
    self.proj = nnx.Linear(arch.width, arch.width, **linear)
    self.heads = arch.heads

  def __call__(self, x, mix):
    """(..., d) -> (..., d) and the scores that `mix` returns."""
    qkv = self.qkv(x)
    qkv = qkv.reshape(*x.shape[:-1], 3, self.heads, -1)  # (..., 3, h, c)
    context, scores = mix(qkv[..., 0, :, :], qkv[..., 1, :, :], qkv[..., 2, :, :])
    return self.proj(context.reshape(x.shape)), scores


class Mlp(nnx.Module):
  """Two linear layers with a GELU between them."""

  def __init__(self, arch: Architecture, *, dtype, rngs):
    linear = dict(kernel_init=_truncated_normal, dtype=dtype, rngs=rngs)
    self.fc1 = nnx.Linear(arch.width, arch.mlp_ratio * arch.width, **linear)
    self.fc2 = nnx.Linear(arch.mlp_ratio * arch.width, arch.width, **linear)

  def __call__(self, x):
    """(..., d) -> (..., d)."""
    return self.fc2(nnx.gelu(self.fc1(x), approximate=False))


class Block(nnx.Module):
  """A pre-norm transformer block."""

  def __init__(self, arch: Architecture, *, dtype, rngs):
    self.norm1 = _layer_norm(arch, dtype, rngs)
    self.attn = Attention(arch, dtype=dtype, rngs=rngs)
    self.norm2 = _layer_norm(arch, dtype, rngs)
    self.mlp = Mlp(arch, dtype=dtype, rngs=rngs)
    self.residual_divisor = arch.residual_divisor

  def __call__(self, x, mix):
    """One block.

    Args:
      x: (..., d) tokens, in any arrangement that `mix` understands.
      mix: function of q, k, v, each (..., h, c), that returns (context, scores); see `attention`.

    Returns:
      (..., d) tokens and the scores of `mix`.
    """
    y, scores = self.attn(self.norm1(x), mix)
    x = x + y / self.residual_divisor
    return x + self.mlp(self.norm2(x)) / self.residual_divisor, scores


class VisionTransformer(nnx.Module):
  """The parameters of a ViT, dense or pruned; `executions` runs them.

  Args:
    arch: the dimensions.
    dtype: compute type, float32 or bfloat16. Parameters are float32 in both.
    rngs: where the initial parameters come from.
  """

  def __init__(self, arch: Architecture, *, dtype=jnp.float32, rngs: nnx.Rngs):
    self.arch = arch
    self.dtype = jnp.dtype(dtype)
    self.patch_embed = PatchEmbed(arch, dtype=dtype, rngs=rngs)
    self.cls_token = nnx.Param(_truncated_normal(rngs.params(), (1, 1, arch.width)))
    self.pos_embed = nnx.Param(_truncated_normal(rngs.params(), (1, 1 + arch.patches, arch.width)))
    self.blocks = nnx.List([Block(arch, dtype=dtype, rngs=rngs) for _ in range(arch.depth)])
    self.norm = _layer_norm(arch, dtype, rngs)
    head = functools.partial(
      nnx.Linear, arch.width, arch.classes, kernel_init=_truncated_normal, dtype=dtype, rngs=rngs
    )
    self.head = head()
    if arch.aux_head:
      self.aux_head = head()
    if arch.prune_before:
      self.thresholds = nnx.Param(pruning.initial_thresholds(len(arch.prune_before)))

  def embed(self, images):
    """Normalised images (b, height, width, 3) -> (b, 1 + n, d) tokens, the class token first."""
    x = self.patch_embed(images.astype(self.dtype))
    cls_token = jnp.broadcast_to(self.cls_token[...], (x.shape[0], 1, x.shape[-1]))
    x = jnp.concatenate([cls_token.astype(self.dtype), x], axis=1)
    return x + self.pos_embed[...].astype(self.dtype)

  def classify(self, class_tokens):
    """(..., d) class tokens after the last block -> (..., classes) float32 logits."""
    return self.head(self.norm(class_tokens)).astype(jnp.float32)

  def classify_patches(self, tokens):
    """(..., d) patch tokens after the last block -> (..., classes) float32 auxiliary logits."""
    return self.aux_head(self.norm(tokens)).astype(jnp.float32)


def create(arch: Architecture, *, seed=0, dtype=jnp.float32):
  """A network with random parameters, made in one compiled call."""
  return nnx.jit(lambda: VisionTransformer(arch, dtype=dtype, rngs=nnx.Rngs(seed)))()


def model(arch: Architecture, params, *, dtype=jnp.float32):
  """The network with given parameters; dense where they have no thresholds."""
  graphdef, _ = abstract(arch if "thresholds" in params else arch.dense, dtype=dtype)
  return nnx.merge(graphdef, params)


def split(model):
  """A model as (graphdef, params), a plain nested dictionary of arrays.

  The running statistics of batch norms are among them: what is averaged, saved and exported is
  then one tree. No gradient reaches them; `update_statistics` moves them.
  """
  graphdef, state = nnx.split(model)
  return graphdef, nnx.to_pure_dict(state)


def train_mode(model, axis_name=None, freeze=""):
  """Makes batch norms use the batch they see, of all devices along `axis_name`.

  Those whose statistics the regular expression `freeze` is found in go on using these.
  """

  def learns(path, module):
    name = ".".join(map(str, (*path, "mean")))
    return isinstance(module, BatchNorm) and not (freeze and re.search(freeze, name))

  model.set_attributes(
    learns, use_running_average=False, axis_name=axis_name, raise_if_not_found=False
  )


def update_statistics(params, model):
  """`params` with the running statistics that a forward in training left in `model`."""
  _, after = split(model)
  return jax.tree_util.tree_map_with_path(
    lambda path, old, new: new if is_statistic(path) else old, params, after
  )


def is_statistic(path):
  """Whether a leaf of the parameters is a running statistic; `path` is of `jax.tree_util`."""
  return jax.tree_util.keystr(path[-1:], simple=True) in ("mean", "var")


@functools.cache
def abstract(arch: Architecture, *, dtype=jnp.float32):
  """(graphdef, params) without allocating: params are `jax.ShapeDtypeStruct`s."""
  return split(nnx.eval_shape(lambda: VisionTransformer(arch, dtype=dtype, rngs=nnx.Rngs(0))))


def without_thresholds(params):
  """The parameters of the dense network."""
  return {name: value for name, value in params.items() if name != "thresholds"}


def count_parameters(params):
  """Number of scalars in a tree of arrays."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def _layer_norm(arch, dtype, rngs):
  return nnx.LayerNorm(arch.width, epsilon=arch.norm_epsilon, dtype=dtype, rngs=rngs)
