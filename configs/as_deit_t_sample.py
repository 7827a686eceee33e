"""DeiT-T pruned to a share of its GMACs; a recipe for a thousand images and two CPU cores.

The argument `dense` gives the network without pruning; `0.65,merge` one that merges tokens.

python train.py --config configs/as_deit_t_sample.py:0.65 --workdir runs/as_deit_t_65 \
  --config.init_from=deit_tiny_patch16_224.safetensors --config.data.dir=DIR
Two CPU cores, 15 to 20 minutes. Measured on 300 validation images, a sample of ImageNet: 79.7 top-1
at 0.648 of the dense GMACs, 70.7 at 0.500 (dense: 83.3; thresholds alone: 78.3 and 61.7).
"""

from asvit_jax import config as config_lib
from asvit_jax.config import options


def get_config(argument="0.65"):
  """The config for a share of the dense GMACs; `0.65,merge` merges tokens instead."""
  config = config_lib.base()
  config.model.variant = "deit_t"
  options.apply(config, argument)
  if config.budget is None:
    return config
  config.thresholds = "calibrated"
  config.batch_size = 50
  config.epochs = 4.0
  config.data.crop_scale = (0.5, 1.0)
  config.optimizer.lr = 5e-4
  config.optimizer.end_lr = 5e-5
  # The teacher knows the classes better than a thousand labels can teach, and in so few steps the
  # gradient of the classification term would move the thresholds away from the budget.
  config.loss.classification = 0.0
  config.loss.distillation = 1.0
  config.loss.budget = 10.0
  config.ema_decay = 0.0
  config.eval.batch_size = 50
  config.eval.every = 40
  config.log_every = 5
  config.checkpoint_every = 20
  return config
