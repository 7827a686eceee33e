"""DeiT-T, pruned to a share of its GMACs; the argument `dense` gives the network without pruning.

python train.py --config configs/as_deit_t.py:0.65 --workdir runs/as_deit_t --config.data.dir=DIR
python evaluate.py --config configs/as_deit_t.py:dense --config.data.dir=DIR \
  --weights hf:timm/deit_tiny_patch16_224.fb_in1k

Published (ImageNet-1k, 224²): dense 72.2 top-1 at 1.25 GMACs; none pruned.
Meant for one host of 4 or more accelerators. Run here on a sample of ImageNet only, see README.md.
"""

from asvit_jax.config import imagenet


def get_config(argument="0.65"):
  """The config for a share of the dense GMACs; `0.65,merge` merges tokens instead."""
  return imagenet.recipe("deit_t", argument, "hf:timm/deit_tiny_patch16_224.fb_in1k")
