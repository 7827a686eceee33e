"""The dimensions of a network, and the published architectures."""

import dataclasses
import itertools
import math

from asvit_jax.core import sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.parts import check_from_file
from asvit_jax.core.printable import on_a_line
from asvit_jax.vit import fields
from asvit_jax.vit.rope import BASES

_LATER = (
  *("layer_scale", "dist_token", "dist_head", "prune_inside", "count_multiple"),
  *("layer_scale_init", "pos_embed", "rope", "rope_base", "rope_grid"),
  "rope_merged",
  *("swiglu", "mlp_norm", "qk_norm"),
  *("class_token", "registers", "pool", "norm_after_pool", "norm_pre"),
  *("activation", "patch_bias", "head", "text_width"),
)


@dataclasses.dataclass(frozen=True)
class Architecture:
  """The dimensions of a network, and the names of the parts that it prunes with.

  Attributes:
    width: width of a token, d.
    heads: number of attention heads; together they have the width d.
    depth: number of blocks.
    mlp_ratio: width of a block's hidden layer ÷ d.
    image_size: side of the images, pixels; (height, width) if they are not square.
    patch_size: side of a patch, pixels.
    classes: number of classes; without a classifier, the width of the features, see `head`.
    stem: a name of `stems.STEMS`.
    norm_epsilon: epsilon of the layer norms.
    qkv_bias: whether queries, keys and values have biases.
    residual_divisor: divisor of both residual branches of a block.
    layer_scale: whether both residual branches are scaled by a learned factor per channel.
    layer_scale_init: initial value of these factors.
    pos_embed: whether a learned position embedding is added to the tokens.
    rope: the kind of rotary positions, see `vit.rope`; "" for none.
    rope_base: base of their frequencies; 0 becomes the kind's published one.
    rope_grid: (rows, columns) of patches in pretraining, over which `eva02` scales the patches'
      places; () for the network's own grid.
    rope_merged: the place of a merged token: "mean", that of its patches, or "kept", that of the
      token that it was merged into.
    swiglu: whether the MLPs are SwiGLUs (arXiv:2002.05202): two layers side by side to the hidden
      width, of which the first, after a SiLU, multiplies the second.
    mlp_norm: whether the hidden layer of an MLP is normalised, as in EVA-02.
    qk_norm: whether each head's queries and keys are normalised (arXiv:2302.05442).
    class_token: whether there is a class token before the patches.
    registers: number of register tokens (arXiv:2309.16588) between the class token and the patches.
    pool: what the prediction reads: "token", the class token; "avg", the mean of the patches, each
      with the weight of the number of patches that it stands for; "map", an attention pooling of
      the patches, as in SigLIP.
    norm_after_pool: whether the final norm follows the mean of "avg" instead of preceding it.
    norm_pre: whether tokens are normalised before the first block, as in CLIP.
    activation: of the MLPs, a name of `layers.ACTIVATIONS`.
    patch_bias: whether the convolution that cuts patches has a bias.
    head: "classifier"; "projection", a linear layer without bias, as in CLIP; or "none". Without a
      classifier, the network's logits are the features of the image, or follow from `text_width`.
    text_width: width of the text features, one for each class, whose cosine with the features of
      the image gives the logits, as in CLIP (`Network.zero_shot`); 0 if there are none.
    dist_token: whether there is DeiT's distillation token beside the class token.
    dist_head: whether that token has a head, whose logits are averaged with the class token's.
    aux_head: whether a second head, for patch tokens, contributes to the prediction.
    count_elementwise: whether element-wise operations count as MACs, as LV-ViT's authors do.
    prune_before: the blocks, counted from 0, before which stages prune; empty for a dense network.
    prune_inside: whether a stage prunes inside the block before that, between its attention and
      its MLP, which then runs on the remaining tokens only.
    count_multiple: the number of tokens that an image keeps, prefix tokens included, is rounded up
      to a multiple of this, with the next best tokens, as far as there are any. 1 as published; 16
      fills the widths that packed execution compiles.
    attention: a name of `attentions.ATTENTIONS`.
    score: a name of `scores.SCORES`.
    reduction: a name of `reductions.REDUCTIONS`.
    score_exponents: exponents of the score's factors, two to four numbers; see the score.
    stage_weights: relative strength of each stage: where a stage of weight 1 keeps the share r of
      the tokens, a stage of weight w keeps r^w. Empty: 1 for all.
  """

  width: int
  heads: int
  depth: int = 12
  mlp_ratio: float = 4
  image_size: int | tuple[int, int] = 224
  patch_size: int = 16
  classes: int = 1000
  stem: str = "patch"
  norm_epsilon: float = 1e-6
  qkv_bias: bool = True
  residual_divisor: float = 1.0
  layer_scale: bool = False
  layer_scale_init: float = 1e-6
  pos_embed: bool = True
  rope: str = ""
  rope_base: float = 0.0
  rope_grid: tuple[int, ...] = ()
  rope_merged: str = "mean"
  swiglu: bool = False
  mlp_norm: bool = False
  qk_norm: bool = False
  dist_token: bool = False
  dist_head: bool = False
  aux_head: bool = False
  count_elementwise: bool = False
  prune_before: tuple[int, ...] = (4, 7, 10)
  prune_inside: bool = False
  count_multiple: int = 1
  attention: str = "softmax"
  score: str = "class_attention"
  reduction: str = "drop"
  score_exponents: tuple[float, ...] = (1.0, 1.0)
  stage_weights: tuple[float, ...] = ()
  class_token: bool = True
  registers: int = 0
  pool: str = "token"
  norm_after_pool: bool = False
  norm_pre: bool = False
  activation: str = "gelu"
  patch_bias: bool = True
  head: str = "classifier"
  text_width: int = 0

  def __post_init__(self):
    """Raises InputError for invalid values, and for dimensions that do not match each other."""
    for name, value in fields.plain(vars(self)).items():  # the canonical form of each value
      object.__setattr__(self, name, value)
    if self.patch_size < 1 or any(side % self.patch_size for side in self.image_hw):
      raise InputError(
        f"image size {self.image_size} is not a multiple of patch size {self.patch_size}: "
        "set model.image_size or model.patch_size so that whole patches tile the image"
      )
    if self.patches > fields.MOST_PATCHES:
      raise InputError(
        f"image size {self.image_size} has {self.patches:,} patches of {self.patch_size} pixels: "
        f"expected at most {fields.MOST_PATCHES:,}; set model.image_size or model.patch_size"
      )
    if self.classes < 1:
      raise InputError(f"{self.classes} classes: model.num_classes must be at least 1")
    for name in ("width", "heads", "depth", "count_multiple"):
      if getattr(self, name) < 1:
        raise InputError(f"model.{name} {getattr(self, name)} is not valid: expected at least 1")
    # A ratio like 15360/88 is not exact.
    if self.hidden < 1 or abs(self.hidden - self.mlp_ratio * self.width) > 1e-6:
      raise InputError(
        f"mlp_ratio {self.mlp_ratio} of width {self.width}: model.mlp_ratio must give a whole "
        "number of hidden units"
      )
    if self.width % self.heads:
      raise InputError(f"width {self.width} does not divide into {self.heads} heads")
    self._check_rope()
    if self.dist_head and (self.aux_head or not self.dist_token):
      raise InputError(
        "model.dist_head: expected model.dist_token with it, and no model.aux_head: it reads that "
        "token"
      )
    self._check_prediction()
    stages = (0, *self.prune_before, self.depth)
    if any(a >= b for a, b in itertools.pairwise(stages)):
      raise InputError(
        f"model.prune_before {self.prune_before}: expected increasing blocks between 1 and "
        f"{self.depth - 1}"
      )
    if not 2 <= len(self.score_exponents) <= 4:
      raise InputError(f"score_exponents {self.score_exponents}: expected two numbers to four")
    weights = self.stage_weights
    if weights and (len(weights) != self.stages or min(weights) <= 0):
      raise InputError(
        f"stage_weights {weights}: expected a number above 0 for each of the {self.stages} stages "
        f"of prune_before {self.prune_before}, or none"
      )

  def _check_rope(self):
    """Sets the kind's base if none is given; raises InputError for invalid rotary positions."""
    if not self.rope:
      if self.rope_base or self.rope_grid:
        raise InputError(
          f"model.rope_base {self.rope_base:g} and model.rope_grid {self.rope_grid} without rotary "
          "positions: set model.rope, too"
        )
      return
    object.__setattr__(self, "rope_base", float(self.rope_base or BASES[self.rope]))
    if self.rope_base < 1:
      raise InputError(f"model.rope_base {self.rope_base:g} is not valid: expected at least 1")
    if self.width // self.heads % 4:
      raise InputError(
        f"width {self.width} with {self.heads} heads: rotary positions (model.rope) need a "
        f"multiple of 4 channels per head, not {self.width // self.heads}"
      )
    if self.rope_grid and (
      self.rope != "eva02" or len(self.rope_grid) != 2 or min(self.rope_grid) < 1
    ):
      raise InputError(
        f"model.rope_grid {self.rope_grid} of model.rope {self.rope!r}: expected rows and columns "
        "of 'eva02', or none"
      )

  def _check_prediction(self):
    """Raises InputError for tokens, a pooling and a head that do not go together."""
    if self.registers < 0:
      raise InputError(f"model.registers {self.registers} is not valid: expected at least 0")
    if not self.class_token and (self.pool == "token" or self.dist_token):
      what = "model.dist_token" if self.dist_token else 'model.pool "token", which reads it'
      raise InputError(
        f'no class token, with {what}: set model.class_token, or model.pool to "avg" or "map"'
      )
    if self.norm_after_pool and self.pool != "avg":
      raise InputError(
        f'model.norm_after_pool with model.pool "{self.pool}": expected "avg", whose mean it '
        "normalises"
      )
    if (self.dist_head or self.aux_head) and (self.pool != "token" or self.head != "classifier"):
      raise InputError(
        f'model.{"dist_head" if self.dist_head else "aux_head"} with model.pool "{self.pool}" and '
        f'model.head "{self.head}": expected "token" and "classifier", beside which it predicts'
      )
    if self.text_width < 0 or (self.text_width and self.head == "classifier"):
      raise InputError(
        f'model.text_width {self.text_width} with model.head "{self.head}": expected 0, or the '
        'width of the features of "projection" or "none", which are compared with those of texts'
      )
    if self.head == "none" and self.features != self.width:
      name = "text_width" if self.text_width else "num_classes"
      raise InputError(
        f'model.head "none" with model.{name} {self.features}: expected {self.width}, the '
        "width of the features, which are then the network's output"
      )

  @property
  def image_hw(self):
    """Height and width of the images in pixels."""
    return sizes.height_width(self.image_size)

  @property
  def image_shape(self):
    """The shape of an image, (height, width, 3)."""
    return (*self.image_hw, 3)

  @property
  def grid(self):
    """(rows, columns) of patches."""
    height, width = self.image_hw
    return height // self.patch_size, width // self.patch_size

  @property
  def patches(self):
    """Number of patch tokens."""
    return math.prod(self.grid)

  @property
  def prefix_tokens(self):
    """Number of tokens before the patches, which are never pruned.

    In this order: the class token, the distillation token, the registers; there may be none.
    """
    return self.class_token + self.dist_token + self.registers

  @property
  def read_tokens(self):
    """Number of prefix tokens that the prediction reads, if it reads no patches."""
    return 1 + self.dist_head

  @property
  def reads_patches(self):
    """Whether the prediction reads patch tokens, so that the last block runs for all tokens."""
    return self.aux_head or self.pool != "token"

  @property
  def classifies(self):
    """Whether the network's logits are those of classes, not features of the image."""
    return self.head == "classifier" or self.text_width > 0

  def check_classifies(self, what):
    """Raises InputError, saying `what` needs it, unless the network `classifies`."""
    if not self.classifies:
      raise InputError(
        f"{what} a network whose output is {self.classes} features, as its model.head is "
        f"{self.head!r}: give text features of the classes (--zero-shot, `Network.zero_shot`), or "
        "start a classifier with init_new_head=True (`load(…, new_head=True, classes=…)`) and "
        "train it, or read the features (`Network`, predict.py --features)"
      )

  @property
  def least_patches(self):
    """Number of patches that every stage keeps at least: 1 if these alone are pooled."""
    return int(self.pool != "token")

  @property
  def features(self):
    """Width of the output of `head`: the number of classes, or the width of the features."""
    return self.text_width or self.classes

  @property
  def hidden(self):
    """Width of a block's hidden layer."""
    return round(self.mlp_ratio * self.width)

  @property
  def stages(self):
    """Number of stages, each with a threshold."""
    return len(self.prune_before)

  @property
  def stage_exponents(self):
    """The powers of the ratio r that give the shares of patches left after each stage."""
    return tuple(itertools.accumulate(self.stage_weights or (1.0,) * self.stages))

  @property
  def dense(self):
    """The same network without pruning."""
    return dataclasses.replace(self, prune_before=(), stage_weights=())

  def to_json(self):
    """A dictionary for JSON. It omits newer fields at their defaults, which older versions lack."""
    off = {field.name: field.default for field in dataclasses.fields(self) if field.name in _LATER}
    fields = {k: v for k, v in dataclasses.asdict(self).items() if k not in off or v != off[k]}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

  @classmethod
  def from_json(cls, values, source, parts=()):
    """Builds it from a dictionary of `to_json`.

    Args:
      values: the dictionary, from a file.
      source: origin of the dictionary, for the error.
      parts: names of the user's own parts that the user typed, see `core.parts.typed`; a file may
        name these and the parts of this package.

    Raises:
      InputError: not a dictionary; missing or unknown keys; invalid values; or code outside this
        package that the user did not type.
    """
    if not isinstance(values, dict):
      raise InputError(f"{source}: its architecture is not an object of names and values")
    known = {field.name: field.default for field in dataclasses.fields(cls)}
    unknown = sorted(on_a_line(k)[:50] for k in values.keys() - known.keys())
    missing = [k for k, default in known.items() if default is dataclasses.MISSING]
    missing = [k for k in missing if k not in values]
    if unknown or missing:
      listed = [*(f"unknown {k}" for k in unknown[:5]), *(f"missing {k}" for k in missing)]
      raise InputError(
        f"{source} describes a network that this version does not know ({', '.join(listed)}): use "
        "the version of asvit_jax that wrote it, or a newer one"
      )
    for field in fields.NAMES:
      check_from_file(values.get(field, ""), f"model.{field}", source, parts)
    try:
      return cls(**values)
    except InputError as error:
      raise InputError(f"{source}: {error}") from error


def stages_of(depth):
  """Default blocks to prune before, for `depth` blocks: at the same relative depths as DeiT's."""
  blocks = {round(depth * share / 12) for share in (4, 7, 10)}
  return tuple(sorted(block for block in blocks if 0 < block < depth))


def stages_within(stages, depth):
  """The stages if `depth` blocks have them all, otherwise `stages_of` the depth."""
  return stages if max(stages, default=0) < depth else stages_of(depth)


# Common to both published sizes of LV-ViT (arXiv:2104.10858, table 1).
_LVVIT = dict(
  mlp_ratio=3,
  stem="lv",
  norm_epsilon=1e-5,
  qkv_bias=False,
  residual_divisor=2.0,
  aux_head=True,
  count_elementwise=True,
)

VARIANTS = {
  # DeiT (arXiv:2012.12877, table 1).
  "deit_t": Architecture(width=192, heads=3),
  "deit_s": Architecture(width=384, heads=6),
  "deit_b": Architecture(width=768, heads=12),
  # The larger ViTs (arXiv:2010.11929, table 1), pruned at the same relative depths as DeiT.
  "vit_l": Architecture(width=1024, heads=16, depth=24, prune_before=(8, 14, 20)),
  "vit_h": Architecture(width=1280, heads=16, depth=32, patch_size=14, prune_before=(11, 19, 27)),
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
