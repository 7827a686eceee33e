"""The common part of the ImageNet-1k recipes: the paper's recipe (arXiv:2209.13802, section 4).

30 epochs from the published dense weights, batch 512, AdamW, cosine decay from 2e-5 to 2e-6, weight
decay 1e-6, EMA 0.99996: the defaults of `config.base`, except that the EMA has no warm-up, as in
the paper. `dense` keeps the warm-up, because it is for fine-tuning on other data, often in few
steps. The augmentations are those of DeiT (arXiv:2012.12877): RandAugment, three views of an image
close together, random erasing, and mixup or cutmix, drawn once per step for all images of a device.
Training computes in bfloat16, with float32 parameters, heads and losses; `dense` stays float32, in
which its published results were measured. The ImageNet recipes have not been run here; the results
in their docstrings are the authors'.
"""

from asvit_jax.config import options
from asvit_jax.config.defaults import base


def recipe(variant, argument, weights):
  """The config of an ImageNet recipe.

  Args:
    variant: a key of `vit.VARIANTS`.
    argument: see `options.apply`; "dense" to evaluate published weights or to fine-tune them on
      other data.
    weights: the dense weights, as for `init_from`.

  Returns:
    The config, for ImageNet as TFDS prepares it; the user sets `data.dir`.
  """
  config = base()
  config.model.variant = variant
  config.data.name = "tfds:imagenet2012"
  config.data.eval_split = "validation"
  config.data.rand_augment = 9.0
  config.data.rand_augment_deviation = 0.5
  config.data.repeats = 3
  config.mix.mixup = 0.8
  config.mix.cutmix = 1.0
  config.mix.erasing = 0.25
  config.mix.mode = "batch"
  config.init_from = weights
  options.apply(config, argument)
  if config.budget is not None:
    config.model.dtype = "bfloat16"
    config.ema_warmup = False
  return config
