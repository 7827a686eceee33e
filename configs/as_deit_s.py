"""DeiT-S, pruned to a share of its GMACs; the argument `dense` gives the network without pruning.

python train.py --config configs/as_deit_s.py:0.65 --workdir runs/as_deit_s --config.data.dir=DIR
python evaluate.py --config configs/as_deit_s.py:dense --config.data.dir=DIR \
  --weights hf:timm/deit_small_patch16_224.fb_in1k

Published (ImageNet-1k, 224²): dense 79.8 top-1 at 4.6 GMACs; 65 %: 79.6 at 3.0; 50 %: 78.7 at 2.3.
Meant for one host of 8 accelerators. Not yet run here.
"""

from asvit_jax.config import imagenet


def get_config(argument="0.65"):
  """The config for a share of the dense GMACs; `0.65,merge` merges tokens instead."""
  return imagenet.recipe("deit_s", argument, "hf:timm/deit_small_patch16_224.fb_in1k")
