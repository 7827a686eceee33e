"""DeiT-T, dense, on a folder of ImageNet-1k images.

python evaluate.py --config configs/deit_t.py --weights deit_tiny_patch16_224.safetensors \
  --config.data.dir=DIR
"""

from asvit_jax import config as config_lib


def get_config():
  """The config."""
  config = config_lib.base()
  config.model.variant = "deit_t"
  return config
