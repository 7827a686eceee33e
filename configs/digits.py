"""A small dense ViT on translated, cluttered digits; made for two CPU cores.

python train.py --config configs/digits.py --workdir runs/digits
"""

from asvit_jax import config as config_lib


def get_config():
  """The config."""
  config = config_lib.base()
  config.model.variant = "digits"
  config.model.num_classes = 10
  config.model.image_size = 48
  config.model.patch_size = 6
  config.data.name = "digits"
  config.data.dir = "runs/data"
  config.data.crop_scale = (1.0, 1.0)
  config.data.crop_ratio = 1.0
  config.data.hflip = False
  config.data.check_images = 200
  config.batch_size = 128
  config.total_steps = 1500
  config.optimizer.lr = 6e-3
  config.optimizer.end_lr = 4e-5
  config.optimizer.warmup = 0.1
  config.optimizer.weight_decay = 0.05
  config.ema_decay = 0.99
  config.eval.every = 500
  config.checkpoint_every = 500
  return config
