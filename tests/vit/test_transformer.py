import numpy as np

from asvit_jax import vit


def test_initial_thresholds_are_thousandths():
  np.testing.assert_allclose(vit.initial_thresholds(3), [0.001, 0.002, 0.003], rtol=1e-6)
