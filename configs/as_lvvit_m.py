"""LV-ViT-M, pruned to a share of its GMACs; the argument `dense` gives the network without pruning.

python train.py --config configs/as_lvvit_m.py:0.76 --workdir runs/as_lvvit_m \
  --config.data.dir=DIR --config.init_from=W
python evaluate.py --config configs/as_lvvit_m.py:dense --weights W --config.data.dir=DIR

W is the LV-ViT authors' checkpoint, a .pth.tar file.

Published (ImageNet-1k, 224²): dense 84.1 top-1 at 12.7 GMACs; 76 %: 84.0 at 9.6; 67 %: 83.9 at 8.5.
Meant for one host of 8 accelerators or more. Not yet run here.
"""

from asvit_jax.config import imagenet


def get_config(budget="0.76"):
  """The config for a share of the dense GMACs."""
  return imagenet.recipe("lvvit_m", budget, "")
