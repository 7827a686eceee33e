"""LV-ViT-S, pruned to a share of its GMACs; the argument `dense` gives the network without pruning.

python train.py --config configs/as_lvvit_s.py:0.7 --workdir runs/as_lvvit_s \
  --config.data.dir=DIR --config.init_from=W
python evaluate.py --config configs/as_lvvit_s.py:dense --weights W --config.data.dir=DIR

W is the LV-ViT authors' checkpoint, a .pth.tar file.

Published (ImageNet-1k, 224²): dense 83.3 top-1 at 6.6 GMACs; 70 %: 83.1 at 4.6; 60 %: 82.6 at 3.9.
Meant for one host of 8 accelerators. Not yet run here.
"""

from asvit_jax.config import imagenet


def get_config(budget="0.7"):
  """The config for a share of the dense GMACs."""
  return imagenet.recipe("lvvit_s", budget, "")
