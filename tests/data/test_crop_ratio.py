"""A crop ratio that a stranger wrote takes no gigabytes: it is refused, and crops are bounded."""

import numpy as np
import pytest
import tiny
from PIL import Image

from asvit_jax.config import ranges
from asvit_jax.core.errors import InputError
from asvit_jax.data import transforms
from asvit_jax.data.preprocessing import CROP_MODES, Preprocessing
from asvit_jax.weights.formats import processor


@pytest.mark.parametrize("ratio", [1e-9, 1e-3, 0.09])
def test_a_tiny_crop_ratio_is_refused_wherever_it_comes_from(ratio):
  said = r"crop_ratio .* is not valid: expected in \[0\.1, 1\]"
  with pytest.raises(InputError, match=said):
    Preprocessing(crop_ratio=ratio)
  with pytest.raises(InputError, match=said):
    Preprocessing.from_json({"crop_ratio": ratio}, "w.safetensors")
  with pytest.raises(InputError, match=said):
    ranges.of("data.crop_ratio").check("data.crop_ratio", ratio)
  sizes = {"size": 65536, "do_center_crop": True, "crop_size": max(1, int(65536 * ratio))}
  with pytest.raises(InputError, match=r"crop_size .*expected at least 0\.1 of size 65536"):
    processor.fields(sizes, "weights")
  with pytest.raises(InputError, match="crop_pct"):
    processor.fields({"size": {"shortest_edge": 16}, "crop_pct": ratio}, "weights")


@pytest.mark.parametrize("mode", CROP_MODES)
@pytest.mark.parametrize("size", [32, (24, 40)])
def test_what_is_cut_first_is_nearly_what_is_resized_first(monkeypatch, mode, size):
  pixels = np.random.default_rng(0).integers(0, 256, (12, 15, 3), dtype=np.uint8)
  image = Image.fromarray(pixels).resize((60, 48), Image.Resampling.BICUBIC)
  preprocessing = Preprocessing(crop_ratio=0.5, crop_mode=mode)
  whole = np.asarray(transforms.center_crop(image, size, preprocessing), np.int32)
  monkeypatch.setattr(transforms, "_MOST_PIXELS", 1)
  cut = np.asarray(transforms.center_crop(image, size, preprocessing), np.int32)
  assert cut.shape == whole.shape
  assert np.abs(cut - whole).mean() < 3


@pytest.mark.parametrize("mode", CROP_MODES)
def test_no_image_is_resized_to_more_than_is_bounded(monkeypatch, mode):
  """By the size that PIL is asked for: 3,000² pixels ÷ 0.1 would take 3.6 GB."""
  asked, resize = [], Image.Image.resize

  def counted(image, size, *args):
    asked.append(size[0] * size[1])
    return resize(image, size, *args)

  monkeypatch.setattr(Image.Image, "resize", counted)
  image = Image.fromarray(np.zeros((8, 10, 3), np.uint8))
  found = transforms.center_crop(image, 3000, Preprocessing(crop_ratio=0.1, crop_mode=mode))
  assert found.size == (3000, 3000)
  assert asked == [3000 * 3000]


@pytest.mark.parametrize("epsilon", [0, 1e-300, 1e-31])
def test_an_epsilon_that_float32_cannot_divide_by_is_refused(epsilon):
  with pytest.raises(InputError, match=r"norm_epsilon .*1e-30"):
    tiny.arch(norm_epsilon=epsilon)
  with pytest.raises(InputError, match=r"norm_epsilon .*1e-30"):
    ranges.of("model.norm_epsilon").check("model.norm_epsilon", epsilon)
  assert tiny.arch(norm_epsilon=1e-12).norm_epsilon == 1e-12
