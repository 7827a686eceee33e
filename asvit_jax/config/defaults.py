"""The configuration: every key with its default.

A file in `configs/` starts from `base()` and changes what its recipe needs. Keys are locked, so a
misspelt one is an error that names the nearest.
"""

from types import NoneType

from ml_collections import ConfigDict, config_dict

from asvit_jax.core import keywords
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.core.progress import log
from asvit_jax.losses import WEIGHTS


class Section(ConfigDict):
  """Keys of a config that belong together; numbers and arrays of NumPy and JAX become Python's.

  A value of another type than a key's is an InputError, by the key's name.
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
    """As `ConfigDict.update`; text for keyword arguments sets them all."""
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
    """As `ConfigDict.get_type`; a flag of keyword arguments as a whole is text."""
    return str if isinstance(self.get(key), Arguments) else super().get_type(key)

  def _not_of_its_type(self, key, value, error):
    """The InputError for what ml_collections refuses."""
    from asvit_jax.config import ranges  # nothing else here needs NumPy or JAX

    name = f"{vars(self).get('_section', '')}{key}"
    allowed = ranges.of(name)
    if isinstance(self.get(key), Section):
      expected = "its keys, a dictionary"
    elif allowed is not None:
      expected = allowed.expected
    else:  # a key that somebody added
      expected = f"a value of its type ({' '.join(str(error).split())[:300]})"
    return InputError(f"field {name!r} of the config is {shown(value)}: expected {expected}")


class Arguments(Section):
  """Keyword arguments of a part, which has other ones than the next: any name, any literal.

  They are set one by one, `optimizer.arguments.b1 = 0.95`, or all anew by text, "b1=0.9,b2=0.95".
  """

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs, type_safe=False)

  def __setitem__(self, key, value):
    with self.unlocked():
      super().__setitem__(key, value)

  def get_type(self, key):
    """The type that the flag of a key is read as: `object`, which is any literal.

    The flag sets the key next, and can set only one that is there.
    """
    if key not in self:
      self[key] = None
    return object

  def reset(self, arguments):
    """Sets them all anew, of a dictionary."""
    with self.unlocked():
      for key in list(self):
        del self[key]
      for key, value in arguments.items():
        self[key] = value


class Config(Section):
  """A config: of `epochs` and `total_steps`, which both say how long a run is, the later counts.

  To set `epochs` takes back a `total_steps` that was set before, by a recipe, and says so. Where
  both come at once, from a dictionary, `total_steps` counts.
  """

  def __setitem__(self, key, value):
    super().__setitem__(key, value)
    if isinstance(self.get(key), Section):  # also of a copy: errors name keys in full
      object.__setattr__(self[key], "_section", f"{key}.")
    if key == "epochs" and self.get("total_steps") is not None:
      if isinstance(self.epochs, float):
        said = f"epochs={self.epochs:g} says how long a run is"
        log(f"{said}: total_steps={self.total_steps} is taken back")
      super().__setitem__("total_steps", None)

  def update(self, *other, **kwargs):
    """As `ConfigDict.update`."""
    given = dict(pair for values in (*other, kwargs) for pair in values.items())
    self._forget_length(given)
    super().update(*other, **kwargs)
    if "total_steps" in given:
      super().__setitem__("total_steps", given["total_steps"])

  def update_from_flattened_dict(self, flattened_dict, strip_prefix=""):
    """As `ConfigDict.update_from_flattened_dict`."""
    key = f"{strip_prefix}total_steps"
    self._forget_length(flattened_dict, key)
    super().update_from_flattened_dict(flattened_dict, strip_prefix)
    if key in flattened_dict:
      super().__setitem__("total_steps", flattened_dict[key])

  def _forget_length(self, given, key="total_steps"):
    """Where the number of steps comes anew, the epochs that come with it take nothing back."""
    if key in given and "total_steps" in self:
      super().__setitem__("total_steps", None)


def _of_python(value):
  """A value without the types of NumPy and JAX; arrays are tuples."""
  if hasattr(value, "dtype") and hasattr(value, "tolist"):
    return _as_tuples(value.tolist())
  if type(value) in (tuple, list):
    return type(value)(map(_of_python, value))
  return value


def _as_tuples(value):
  return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def base():
  """The defaults: the paper's recipe (arXiv:2209.13802, section 4) with a plain augmentation."""
  config = Config()
  config.seed = 0
  config.init_from = ""  # weights to start from, also the teacher: a file, a workdir or hf:…
  config.init_key = ""  # of a file that holds several weights, which: "model_ema", "state_dict_ema"
  config.teacher_from = ""  # dense weights that teach where those to start from should not
  config.init_resize = False  # take weights of another image size: interpolate their positions
  config.init_new_head = False  # take weights of another number of classes: with a new head
  # Of a workdir: the step, "latest", "best" or a number, and the weights, "ema", "raw" or "best".
  config.init_step = ""
  config.init_weights_of = ""
  config.budget = config_dict.placeholder(float)  # share of the dense GMACs; None: a dense network
  # Shares between which every step draws its budget, for one network that serves all of them; None:
  # always `budget`, at which the network is evaluated in any case.
  config.budget_range = config_dict.placeholder(tuple)
  config.budget_tolerance = 0.02  # relative: how far from the budget an evaluation still meets it
  config.thresholds = "fixed"  # where they start: "fixed" (0.001, 0.002, …) or "calibrated"
  config.temperature = 1e-4  # of the gate's gradient: how near a score must be to move a threshold

  config.model = Section()
  config.model.variant = "deit_s"  # a key of vit.VARIANTS; any name where all below are given
  config.model.num_classes = 1000
  # Pixels: the side of a square, or height and width, "224x448" or (224, 448).
  config.model.image_size = config_dict.FieldReference(224, field_type=object)
  config.model.patch_size = 16  # pixels
  config.model.dtype = "float32"  # of stem and blocks; parameters, heads and losses stay float32
  config.model.precision = "default"  # of float32 products: the chip's, or "high", "highest"
  config.model.drop_path = 0.0  # rate of the last block, of stochastic depth (arXiv:1603.09382)
  config.model.remat = False  # compute blocks again in the backward pass: less memory, more time
  # Each overrides the variant's; see vit.Architecture. None: as the variant has it.
  config.model.width = config_dict.placeholder(int)
  config.model.heads = config_dict.placeholder(int)
  config.model.depth = config_dict.placeholder(int)
  config.model.mlp_ratio = config_dict.placeholder(float)
  config.model.stem = config_dict.placeholder(str)
  config.model.norm_epsilon = config_dict.placeholder(float)
  config.model.qkv_bias = config_dict.placeholder(bool)
  config.model.residual_divisor = config_dict.placeholder(float)
  config.model.layer_scale = config_dict.placeholder(bool)  # None: as the weights have it
  config.model.dist_token = config_dict.placeholder(bool)
  config.model.dist_head = config_dict.placeholder(bool)
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
  config.data.classes = ""  # file with a class a line, in label order; "": sorted directory names
  config.data.train_split = "train"
  config.data.eval_split = "val"
  config.data.train_labels = ""  # file of images and classes; "": a directory is a class
  config.data.eval_labels = ""
  config.data.exif_orientation = True  # turn images as cameras say; ImageNet's numbers: without
  config.data.sampler = "shuffle"  # or "class_balanced": every class equally often
  config.data.crop_scale = (0.08, 1.0)  # share of the image's area; (1.0, 1.0): the centre crop
  # What the network expects of its images, see data.Preprocessing. None: as its weights say, or
  # where they say nothing 0.875, ImageNet's mean and std, and bicubic.
  config.data.crop_ratio = config_dict.placeholder(float)  # side of the crop ÷ shorter side
  config.data.mean = config_dict.placeholder(tuple)  # of each channel, of pixels in [0, 1]
  config.data.std = config_dict.placeholder(tuple)
  config.data.interpolation = config_dict.placeholder(str)
  config.data.crop_mode = config_dict.placeholder(str)  # "center"; "squash": both sides resized
  config.data.hflip = True
  config.data.shift = 0  # random translation in training, pixels
  config.data.rand_augment = 0.0  # mean magnitude of RandAugment, at most 10; 0: none
  config.data.rand_augment_deviation = 0.5  # of the magnitude
  config.data.rand_augment_operations = 2  # an image
  config.data.color_jitter = 0.0  # change of brightness, contrast and saturation; 0: none
  config.data.repeats = 1  # views of an image close together; an epoch has no more views
  config.data.cache = ""  # directory for the list of a folder's files; empty: the workdir of a run
  config.data.workers = 0  # processes that decode; 0: threads
  config.data.check_images = 2000  # decoded before training starts; all when there are fewer
  config.data.max_bad_images = 0  # unreadable ones to leave out, a split and host

  config.mix = Section()  # on the device
  config.mix.mixup = 0.0  # alpha of the Beta distribution; 0: none
  config.mix.cutmix = 0.0  # alpha of the Beta distribution; 0: none
  config.mix.switch = 0.5  # probability of cutmix where both are on
  config.mix.erasing = 0.0  # probability of an image to lose a rectangle; 0: none
  # "pairs": a draw for every two neighbours. "batch", DeiT's: one draw for all images of a device.
  config.mix.mode = "pairs"

  config.batch_size = 512  # images a step, over all devices of all hosts
  config.accumulate = 1  # parts that a device's share of them runs in, one after the other
  config.parallel = "pmap"  # or "shard_map": the same step, the same result
  config.max_skipped_steps = 3  # in a row whose loss is not finite, before the run stops
  config.epochs = 30.0
  config.total_steps = config_dict.placeholder(int)  # instead of epochs; may grow, as they may
  config.label_smoothing = 0.1
  config.ema_decay = 0.99996  # of the averaged weights; 0: none
  config.ema_warmup = True  # less in early steps: min(ema_decay, (1 + step) / (10 + step))

  config.optimizer = Section()
  config.optimizer.name = "adamw"  # of optimizers.building.OPTIMIZERS, or any of optax
  config.optimizer.arguments = Arguments()  # of it, besides the learning rate: `b1`, `b2`
  config.optimizer.lr = 2e-5  # for a batch of 512; scales with the batch
  config.optimizer.end_lr = 2e-6
  config.optimizer.warmup = 0.0  # share of these steps
  # Steps until end_lr, at which it stays; None: all of the run, and if it is extended the new all.
  config.optimizer.decay_steps = config_dict.placeholder(int)
  config.optimizer.weight_decay = 1e-6
  config.optimizer.clip_norm = 0.0  # of the gradient; 0: none
  config.optimizer.thresholds_lr = 1.0  # the thresholds' learning rate ÷ that of the rest
  config.optimizer.layer_decay = 1.0  # of the learning rate, a layer further from the head
  config.optimizer.freeze = ""  # regular expression: parameters that stay, "patch_embed|blocks.0"

  config.criterion = Section()  # of the classification term
  config.criterion.name = "cross_entropy"  # of losses.criteria.CRITERIA: "focal", "bce"
  config.criterion.arguments = Arguments()  # of it: `gamma`
  config.criterion.class_weights = ""  # "balanced", numbers with commas between, or a file of them

  config.loss = Section(WEIGHTS)  # the weight of each term of losses.LOSSES

  config.eval = Section()
  config.eval.batch_size = 256
  config.eval.every = 1000  # steps
  config.eval.patience = 0  # evaluations without a better one, before the run ends; 0: never
  config.eval.pictures = 6  # images whose kept tokens every evaluation draws; 0: none

  config.wandb = ""  # project at Weights & Biases that metrics also go to; "": none
  config.log_every = 50  # steps
  config.checkpoint_every = 1000  # steps
  return config.lock()
