"""DeiT-B, pruned to a share of its GMACs; the argument `dense` gives the network without pruning.

python train.py --config configs/as_deit_b.py:0.65 --workdir runs/as_deit_b --config.data.dir=DIR
python evaluate.py --config configs/as_deit_b.py:dense --config.data.dir=DIR \
  --weights hf:timm/deit_base_patch16_224.fb_in1k

Published (ImageNet-1k, 224²): dense 81.8 top-1 at 17.6 GMACs; none pruned.
Meant for one host of 8 accelerators or more. Not yet run here.
"""

from asvit_jax.config import imagenet


def get_config(argument="0.65"):
  """The config for a share of the dense GMACs; `0.65,merge` merges tokens instead."""
  return imagenet.recipe("deit_b", argument, "hf:timm/deit_base_patch16_224.fb_in1k")
