"""The configuration: every key with its default.

A recipe in `configs/` starts from `base()` and changes some keys. Keys are locked: a misspelt one
is an error that names the nearest.
"""

from types import NoneType

from ml_collections import ConfigDict, config_dict

from asvit_jax.core import keywords
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.core.progress import log
from asvit_jax.losses import WEIGHTS


class Section(ConfigDict):
  """A section of a config; numbers and arrays of NumPy and JAX are converted to Python's.

  A value whose type does not match that of the key raises an InputError that names the key.
  """

  def __setitem__(self, key, value):
    if isinstance(self.get(key), Arguments) and isinstance(
      value, (str, dict, ConfigDict, NoneType)
    ):
      name = f"{vars(self).get('_section', '')}{key}"
      self[key].reset(keywords.parse(value, name) if isinstance(value, str) else value or {})
      return
    if isinstance(value, (dict, ConfigDict)) and isinstance(self.get(key), Section):
      value = value if type(value) is Section else Section(value)
    value = _of_python(value)
    try:
      super().__setitem__(key, value)
    except TypeError as error:
      raise self._not_of_its_type(key, value, error) from error

  def update(self, *other, **kwargs):
    """Like `ConfigDict.update`; a text for an `Arguments` section replaces all its arguments."""
    given = dict(pair for values in (*other, kwargs) for pair in values.items())
    text = {
      k
      for k in given
      if isinstance(given[k], (str, NoneType)) and isinstance(self.get(k), Arguments)
    }
    for key in text:
      self[key] = given[key]
    super().update({k: v for k, v in given.items() if k not in text})

  def get_type(self, key):
    """Like `ConfigDict.get_type`; the flag of a whole `Arguments` section is a text."""
    return str if isinstance(self.get(key), Arguments) else super().get_type(key)

  def _not_of_its_type(self, key, value, error):
    """The InputError for a value that ml_collections rejects."""
    from asvit_jax.config import ranges  # imported here, as only this needs NumPy and JAX

    name = f"{vars(self).get('_section', '')}{key}"
    allowed = ranges.of(name)
    if isinstance(self.get(key), Section):
      expected = "its keys, a dictionary"
    elif allowed is not None:
      expected = allowed.expected
    else:  # a key that the user added
      expected = f"a value of its type ({' '.join(str(error).split())[:300]})"
    return InputError(f"field {name!r} of the config is {shown(value)}: expected {expected}")


class Arguments(Section):
  """Keyword arguments of a replaceable part: keys of any name, whose values are Python literals.

  To set one and keep the others: `config.optimizer.arguments.b1 = 0.95`, or a dictionary through
  `update`. To replace all of them: assign a dictionary or a text, "b1=0.9,b2=0.95". A text always
  replaces all of them, also through `update`.
  """

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs, type_safe=False)

  def __setitem__(self, key, value):
    with self.unlocked():
      super().__setitem__(key, value)

  def get_type(self, key):
    """The type of the flag of a key: `object`, which accepts any literal.

    A flag can set only an existing key, so a missing one is created here.
    """
    if key not in self:
      self[key] = None
      vars(self).setdefault("_awaited", []).append(key)
    return object

  def reset(self, arguments):
    """Replaces all arguments by those of a dictionary."""
    with self.unlocked():
      for key in list(self):
        del self[key]
      # A flag of the same command line, which comes later, sets them.
      for key in vars(self).get("_awaited", ()):
        self[key] = None
      for key, value in arguments.items():
        self[key] = value


class Config(Section):
  """A config, in which the one of `epochs` and `total_steps` that is set last is the run's length.

  Setting `epochs` unsets a `total_steps` that a recipe had set, and logs that. If both come at
  once, from a dictionary, `total_steps` wins.
  """

  def __setitem__(self, key, value):
    super().__setitem__(key, value)
    if isinstance(self.get(key), Section):  # for errors, which name keys in full; also in copies
      object.__setattr__(self[key], "_section", f"{key}.")
    if key == "epochs" and self.get("total_steps") is not None:
      if isinstance(self.epochs, float):
        log(f"epochs={self.epochs:g} replaces total_steps={self.total_steps} as the run's length")
      super().__setitem__("total_steps", None)

  def update(self, *other, **kwargs):
    """Like `ConfigDict.update`; `total_steps` wins over `epochs`."""
    given = dict(pair for values in (*other, kwargs) for pair in values.items())
    self._forget_length(given)
    super().update(*other, **kwargs)
    if "total_steps" in given:
      super().__setitem__("total_steps", given["total_steps"])

  def update_from_flattened_dict(self, flattened_dict, strip_prefix=""):
    """Like `ConfigDict.update_from_flattened_dict`; `total_steps` wins over `epochs`."""
    key = f"{strip_prefix}total_steps"
    self._forget_length(flattened_dict, key)
    super().update_from_flattened_dict(flattened_dict, strip_prefix)
    if key in flattened_dict:
      super().__setitem__("total_steps", flattened_dict[key])

  def _forget_length(self, given, key="total_steps"):
    """Unsets an old `total_steps` if `given` has a new one, so that its `epochs` log nothing."""
    if key in given and "total_steps" in self:
      super().__setitem__("total_steps", None)


def _of_python(value):
  """Converts numbers of NumPy and JAX to Python's, and arrays to tuples."""
  if hasattr(value, "dtype") and hasattr(value, "tolist"):
    return _as_tuples(value.tolist())
  if type(value) in (tuple, list):
    return type(value)(map(_of_python, value))
  return value


def _as_tuples(value):
  return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def base():
  """The default config: the paper's recipe (arXiv:2209.13802, section 4), simpler augmentation."""
  config = Config()
  config.seed = 0
  config.init_from = ""  # initial weights, also the teacher's: a file, a workdir or hf:…
  config.init_key = ""  # which weights of a file with several: "model_ema", "state_dict_ema"
  config.teacher_from = ""  # dense weights of the teacher, if not those of `init_from`
  config.init_resize = False  # accept weights of another image size: interpolate their positions
  config.init_new_head = False  # accept weights of another number of classes: add a new head
  # If `init_from` is a workdir: the step, "latest", "best" or a number; and "ema", "raw" or "best".
  config.init_step = ""
  config.init_weights_of = ""
  config.budget = config_dict.placeholder(float)  # share of the dense GMACs; None: a dense network
  # Lowest and highest budget. Every step draws one between them, so that one network serves all.
  # None: always `budget`. Evaluations use `budget` in both cases.
  config.budget_range = config_dict.placeholder(tuple)
  config.budget_tolerance = 0.02  # relative deviation from the budget that still meets it
  config.thresholds = "fixed"  # initial values: "fixed" (0.001, 0.002, …) or "calibrated"
  config.temperature = 1e-4  # of the gate's gradient: how near a score must be to move a threshold

  config.model = Section()
  config.model.variant = "deit_s"  # a key of vit.VARIANTS; any name if all keys below are set
  config.model.num_classes = 1000
  # Pixels: the side of a square, or height and width: "224x448" or (224, 448).
  config.model.image_size = config_dict.FieldReference(224, field_type=object)
  config.model.patch_size = 16  # pixels
  config.model.dtype = "float32"  # of stem and blocks; parameters, heads and losses stay float32
  config.model.precision = "default"  # of float32 products: the chip's own; or "high", "highest"
  config.model.drop_path = 0.0  # stochastic depth (arXiv:1603.09382): rate of the last block
  config.model.remat = False  # recompute blocks in the backward pass: less memory, more time
  config.model.kernels = False  # run training steps by kernels, on a TPU; see docs/tpu.md
  # Each key overrides the variant's field of vit.Architecture. None: the variant's value.
  config.model.width = config_dict.placeholder(int)
  config.model.heads = config_dict.placeholder(int)
  config.model.depth = config_dict.placeholder(int)
  config.model.mlp_ratio = config_dict.placeholder(float)
  config.model.stem = config_dict.placeholder(str)
  config.model.norm_epsilon = config_dict.placeholder(float)
  config.model.qkv_bias = config_dict.placeholder(bool)
  config.model.residual_divisor = config_dict.placeholder(float)
  config.model.layer_scale = config_dict.placeholder(bool)  # None: as in the weights
  config.model.layer_scale_init = config_dict.placeholder(float)
  config.model.pos_embed = config_dict.placeholder(bool)
  config.model.rope = config_dict.placeholder(str)  # "dinov3", "eva02"; "": none
  config.model.rope_base = config_dict.placeholder(float)  # 0.0: as published
  config.model.rope_grid = config_dict.placeholder(tuple)
  config.model.rope_merged = config_dict.placeholder(str)  # "mean", "kept"
  config.model.swiglu = config_dict.placeholder(bool)  # SwiGLU
  config.model.mlp_norm = config_dict.placeholder(bool)
  config.model.qk_norm = config_dict.placeholder(bool)
  config.model.dist_token = config_dict.placeholder(bool)
  config.model.dist_head = config_dict.placeholder(bool)
  config.model.class_token = config_dict.placeholder(bool)
  config.model.registers = config_dict.placeholder(int)
  config.model.pool = config_dict.placeholder(str)  # "token", "avg", "map"
  config.model.norm_after_pool = config_dict.placeholder(bool)
  config.model.norm_pre = config_dict.placeholder(bool)
  config.model.activation = config_dict.placeholder(str)  # "gelu", "gelu_tanh", "quick_gelu"
  config.model.patch_bias = config_dict.placeholder(bool)
  config.model.head = config_dict.placeholder(str)  # "classifier", "projection", "none"
  config.model.text_width = config_dict.placeholder(int)  # of zero-shot classification
  config.model.aux_head = config_dict.placeholder(bool)
  config.model.count_elementwise = config_dict.placeholder(bool)
  config.model.prune_before = config_dict.placeholder(tuple)
  config.model.prune_inside = config_dict.placeholder(bool)
  config.model.count_multiple = config_dict.placeholder(int)
  config.model.attention = config_dict.placeholder(str)
  config.model.score = config_dict.placeholder(str)
  config.model.reduction = config_dict.placeholder(str)  # "drop", "merge"
  config.model.score_exponents = config_dict.placeholder(tuple)
  config.model.stage_weights = config_dict.placeholder(tuple)

  config.data = Section()
  config.data.name = "folder"  # a key of data.sources.SOURCES: "folder", "digits", "tfds:NAME"
  config.data.dir = ""
  config.data.classes = ""  # file with one class per line, by label; "": sorted directory names
  config.data.train_split = "train"
  config.data.eval_split = "val"
  config.data.train_labels = ""  # file of images and classes; "": each directory is a class
  config.data.eval_labels = ""
  config.data.exif_orientation = True  # rotate by EXIF; published ImageNet results do not
  config.data.sampler = "shuffle"  # or "class_balanced": every class equally often
  config.data.crop_scale = (0.08, 1.0)  # share of the image's area; (1.0, 1.0): the center crop
  # The network's input preprocessing, see data.Preprocessing. None: as stored with the weights; if
  # nothing is stored, 0.875, ImageNet's mean and std, and bicubic.
  config.data.crop_ratio = config_dict.placeholder(float)  # side of the crop ÷ shorter side
  config.data.mean = config_dict.placeholder(tuple)  # per channel, for pixels in [0, 1]
  config.data.std = config_dict.placeholder(tuple)
  config.data.interpolation = config_dict.placeholder(str)
  config.data.crop_mode = config_dict.placeholder(str)  # "center"; "squash": resize both sides
  config.data.hflip = True
  config.data.shift = 0  # random translation in training, pixels
  config.data.rand_augment = 0.0  # mean magnitude of RandAugment, at most 10; 0: none
  config.data.rand_augment_deviation = 0.5  # standard deviation of the magnitude
  config.data.rand_augment_operations = 2  # operations per image
  config.data.color_jitter = 0.0  # change of brightness, contrast and saturation; 0: none
  config.data.repeats = 1  # views of an image close together; the length of an epoch stays
  config.data.cache = ""  # directory for the list of a folder's files; "": the run's workdir
  config.data.workers = 0  # decoding processes; 0: decode in threads
  config.data.check_images = 2000  # images to decode as a check before training starts
  config.data.max_bad_images = 0  # unreadable images to skip, per split and host

  config.mix = Section()  # augmentation on the device
  config.mix.mixup = 0.0  # alpha of the Beta distribution; 0: none
  config.mix.cutmix = 0.0  # alpha of the Beta distribution; 0: none
  config.mix.switch = 0.5  # probability of cutmix if both are on
  config.mix.erasing = 0.0  # probability of erasing a rectangle of an image; 0: none
  # "pairs": one draw for every two neighbours. "batch", as DeiT: one for all images of a device.
  config.mix.mode = "pairs"

  config.batch_size = 512  # images per step, over all devices of all hosts
  config.accumulate = 1  # equal parts of a device's batch to run one after the other
  config.parallel = "pmap"  # or "shard_map": the same step, the same result
  config.max_skipped_steps = 3  # steps in a row with a loss that is not finite, before a run stops
  config.epochs = 30.0
  config.total_steps = config_dict.placeholder(int)  # instead of epochs; a run may be extended
  config.label_smoothing = 0.1
  config.ema_decay = 0.99996  # of the averaged weights; 0: no averaging
  config.ema_warmup = True  # smaller in early steps: min(ema_decay, (1 + step) / (10 + step))

  config.optimizer = Section()
  config.optimizer.name = "adamw"  # of optimizers.building.OPTIMIZERS, or any of optax
  config.optimizer.arguments = Arguments()  # its other keyword arguments: `b1`, `b2`
  config.optimizer.lr = 2e-5  # for a batch of 512; scales with the batch
  config.optimizer.end_lr = 2e-6
  config.optimizer.warmup = 0.0  # share of the decay's steps
  # Steps until end_lr, which is then kept; None: all steps of the run, also after an extension.
  config.optimizer.decay_steps = config_dict.placeholder(int)
  config.optimizer.weight_decay = 1e-6
  config.optimizer.clip_norm = 0.0  # largest norm of the gradient; 0: no clipping
  config.optimizer.thresholds_lr = 1.0  # learning rate of the thresholds ÷ that of the rest
  config.optimizer.layer_decay = 1.0  # factor of the learning rate per layer away from the head
  config.optimizer.freeze = ""  # regular expression of frozen parameters: "patch_embed|blocks.0"

  config.criterion = Section()  # the classification loss
  config.criterion.name = "cross_entropy"  # of losses.criteria.CRITERIA: or "focal", "bce"
  config.criterion.arguments = Arguments()  # its keyword arguments: `gamma`
  config.criterion.class_weights = ""  # "balanced", comma-separated numbers, or a file of numbers

  config.loss = Section(WEIGHTS)  # the weight of each term of losses.terms.LOSSES

  config.eval = Section()
  config.eval.batch_size = 256
  config.eval.every = 1000  # steps
  config.eval.patience = 0  # evaluations without improvement before the run ends; 0: never
  config.eval.pictures = 6  # images whose kept tokens every evaluation draws; 0: none

  config.wandb = ""  # project at Weights & Biases to log metrics to as well; "": none
  config.log_every = 50  # steps
  config.checkpoint_every = 1000  # steps
  return config.lock()
