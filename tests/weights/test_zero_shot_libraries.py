"""Zero-shot logits, held against the models of both towers that transformers has."""

import numpy as np
import pytest
import tiny
from torch_models import randomized

from asvit_jax.network import load

pytestmark = pytest.mark.external

TOKENS = [[1, 7, 9, 2], [1, 30, 31, 2], [1, 8, 3, 2]]


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_logits_are_those_of_transformers(tmp_path, transformers, kind):
  import torch

  tower = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=48)
  text = tower | dict(vocab_size=50, bos_token_id=1, eos_token_id=2, pad_token_id=0)
  config = getattr(transformers, f"{kind}Config")(
    vision_config=tower | dict(image_size=32, patch_size=8),
    text_config=text | dict(max_position_embeddings=8),
    **({"projection_dim": 16} if kind == "CLIP" else {}),
  )
  model = randomized(getattr(transformers, f"{kind}Model")(config))
  with torch.no_grad():
    model.logit_scale.fill_(np.log(20))
    if kind == "Siglip":
      model.logit_bias.fill_(-3.5)
  model.save_pretrained(tmp_path)
  images, tokens = tiny.images(tiny.arch(), 4), torch.tensor(TOKENS)
  pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
  with torch.no_grad():
    outputs = model(input_ids=tokens, pixel_values=pixels)
    features = model.get_text_features(tokens)
    scale = model.logit_scale.exp().numpy()
  features = np.asarray(getattr(features, "pooler_output", features))
  given = {"names": ["a", "b", "c"], "features": features, "scale": scale}
  if kind == "Siglip":
    given["bias"] = model.logit_bias.detach().numpy()
  np.savez(tmp_path / "texts.npz", **given)
  found = load(tmp_path).zero_shot(tmp_path / "texts.npz")(images).logits
  expected = outputs.logits_per_image.numpy()
  assert np.ptp(expected, axis=1).min() > 0.1
  print(kind, np.abs(found - expected).max(), np.abs(expected).max())
  np.testing.assert_allclose(found, expected, atol=2e-5)
