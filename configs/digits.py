"""A small dense ViT on translated, cluttered digits; made for two CPU cores.

python train.py --config configs/digits.py --workdir runs/digits
Two CPU cores, 2 minutes. Measured: 95.4 top-1 at 0.0198 GMACs.
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
  config.batch_size = 64
  config.total_steps = 600
  # Muon (arXiv:2502.16982) needs less than half of AdamW's steps here; with updates as large as
  # AdamW's, one learning rate serves it and the parameters that it leaves to Adam.
  config.optimizer.name = "muon"
  config.optimizer.arguments.consistent_rms = 0.2
  config.optimizer.lr = 5e-2
  config.optimizer.end_lr = 1e-4
  config.optimizer.warmup = 0.1
  config.optimizer.weight_decay = 0.05
  config.ema_decay = 0.0
  config.eval.every = 300
  config.checkpoint_every = 300
  config.log_every = 20
  return config
