import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing


def test_normalize_is_the_imagenet_formula():
  images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
  expected = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  normal = Preprocessing().normalize(images)
  assert normal.dtype == np.float32
  np.testing.assert_allclose(normal, expected, atol=1e-6)


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"crop_ratio": 0.0}, r"data\.crop_ratio 0\.0 is not valid: expected in \[0\.1, 1\]"),
    ({"crop_ratio": 1.1}, r"data\.crop_ratio 1\.1"),
    ({"mean": (0.5,)}, r"data\.mean \(0\.5,\) is not valid: expected three numbers"),
    ({"std": (0.5, 0.5, 0.0)}, r"data\.std .* expected three numbers above 0"),
    ({"crop_ratio": 10**5000}, r"data\.crop_ratio of type int is not valid: expected in"),
    ({"mean": (10**5000, 0, 0)}, r"data\.mean of type tuple is not valid: expected three"),
    ({"interpolation": "cubic"}, r"data\.interpolation 'cubic' .* bilinear, bicubic"),
  ],
)
def test_what_cannot_work_is_refused_by_the_name_of_its_key(given, message):
  with pytest.raises(InputError, match=message):
    Preprocessing(**given)
  with pytest.raises(InputError, match=message):
    Preprocessing().overridden(ConfigDict(given))


def test_a_config_overrides_what_it_gives_and_nothing_else():
  own = Preprocessing(0.9, (0.5, 0.5, 0.5), (0.1, 0.2, 0.3), "bilinear")
  assert own.overridden(ConfigDict({"name": "folder"})) == own
  nothing = dict.fromkeys(("crop_ratio", "mean", "std", "interpolation"))
  assert own.overridden(ConfigDict(nothing)) == own
  given = ConfigDict(nothing | {"crop_ratio": 0.8, "std": [1.0, 1.0, 1.0]})
  assert own.overridden(given) == Preprocessing(0.8, own.mean, (1.0, 1.0, 1.0), "bilinear")


def test_it_survives_json():
  own = Preprocessing(0.9, (0.5, 0.5, 0.5), (0.1, 0.2, 0.3), "bilinear")
  assert Preprocessing.from_json(json.loads(json.dumps(own.to_json()))) == own
  assert Preprocessing.from_json({"crop_ratio": 0.9, "later": 1}) == Preprocessing(crop_ratio=0.9)
