"""Weights of other libraries go through the commands; what they expect of images goes with them."""

import namings
import numpy as np
import pytest
import tiny
from command_lines import run
from PIL import Image

from asvit_jax import vit, weights
from asvit_jax.core.errors import InputError
from asvit_jax.data.images import load_image
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.network import load
from asvit_jax.sparsity import complexity

ARCH = vit.Architecture(
  width=12,
  heads=3,
  depth=2,
  image_size=16,
  patch_size=4,
  classes=3,
  norm_epsilon=1e-12,
  prune_before=(1,),
)
EXPECTED = Preprocessing(1.0, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", "squash")
CONFIG = '''"""Nothing but defaults."""

from asvit_jax.config import base


def get_config():
  """Them."""
  return base()
'''
KEYS = (
  "--config.model.variant=own",
  "--config.model.width=12",
  "--config.model.heads=3",
  "--config.model.depth=2",
  "--config.model.patch_size=4",
  "--config.model.num_classes=3",
  "--config.model.prune_before=1,",
  "--config.eval.batch_size=5",
)


@pytest.fixture
def place(tmp_path):
  """A directory as transformers saves it, of a dense network."""
  config = {
    "model_type": "vit",
    "num_attention_heads": 3,
    "layer_norm_eps": 1e-12,
    "image_size": 16,
    "id2label": {"0": "ant", "1": "bee", "2": "cat"},
  }
  processor = {
    "image_mean": EXPECTED.mean,
    "image_std": EXPECTED.std,
    "resample": 2,
    "size": {"height": 16, "width": 16},
  }
  tensors = namings.transformers(weights.to_timm(tiny.params(ARCH.dense)))
  return namings.write_repository(tmp_path / "vit", tensors, config, processor)


def test_a_directory_of_transformers_predicts_and_exports_without_being_told_anything(
  tmp_path, place
):
  pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
  image = tmp_path / "a.png"
  Image.fromarray(pixels).save(image)
  (said,) = run("predict", "--weights", place, image)["predictions"]
  seen = EXPECTED.normalize(load_image(image, 16, EXPECTED)[None])
  logits = np.asarray(tiny.run_dense(ARCH.dense, tiny.params(ARCH.dense), seen).logits[0])
  probabilities = np.exp(logits) / np.exp(logits).sum()
  best = np.argsort(-probabilities)
  assert [answer["class"] for answer in said["top5"]] == [("ant", "bee", "cat")[i] for i in best]
  found = [answer["probability"] for answer in said["top5"]]
  np.testing.assert_allclose(found, probabilities[best], atol=1e-5)

  out = tmp_path / "w.safetensors"
  note = run("export", "--weights", place, "--format", "safetensors", "--out", out)
  assert Preprocessing.from_json(note["preprocessing"]) == EXPECTED
  assert note["preprocessing"]["resize"].startswith("both sides to image_size ÷ crop_ratio")
  assert (load(out).preprocessing, load(out).classes) == (EXPECTED, ("ant", "bee", "cat"))
  with pytest.raises(InputError, match=r"it holds a single network|'model_ema' is not one of them"):
    run("predict", "--weights", place, "--weights-key", "model_ema", image)


def test_rectangles_of_resized_weights_are_evaluated(tmp_path, place):
  (tmp_path / "c.py").write_text(CONFIG)
  data = f"--config.data.dir={tiny.write_folder(tmp_path / 'images')}"
  asked = ("--config", tmp_path / "c.py", "--weights", place, data, *KEYS)
  asked += ("--config.model.image_size=16x32",)
  with pytest.raises(InputError, match="pos_embed has shape"):
    run("evaluate", *asked)
  out = tmp_path / "w.safetensors"
  result = run("evaluate", *asked, "--config.init_resize=True", "--save-weights", out)
  network = load(out)
  assert (network.arch.image_size, network.arch.grid) == ((16, 32), (4, 8))
  assert network.preprocessing == EXPECTED
  assert result["images"] == 10
  assert result["gmacs"] == pytest.approx(complexity.dense_gmacs(network.arch))
