"""Artifacts of networks with rotary positions: masked, fixed, and packed in ONNX."""

import numpy as np
import pytest
import tiny

from asvit_jax.export import verification
from asvit_jax.export.artifacts import load_artifact
from asvit_jax.export.formats import FORMATS

KINDS = {"dinov3": tiny.DINOV3, "eva02": tiny.EVA02 | dict(rope_grid=(3, 3))}

PROGRAMS = [("onnx", "masked"), ("onnx", "packed"), ("tflite", "fixed")]
EXTERNAL = [(kind, *program) for program in PROGRAMS for kind in KINDS]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("kind", "form", "execution"),
  [
    ("eva02", "stablehlo", "fixed"),
    *(pytest.param(*case, marks=pytest.mark.external) for case in EXTERNAL),
  ],
)
def test_artifacts_do_what_the_network_does(tmp_path, kind, form, execution):
  for library in FORMATS[form].needs:
    pytest.importorskip(library)
  arch = tiny.arch(depth=4, prune_before=(1, 3), **KINDS[kind])
  images = verification.sample_images(arch.image_size)
  params = tiny.with_thresholds(arch, tiny.params(arch), tiny.normalize(images), (0.7, 0.4))
  network = tiny.network(arch).with_params(params).with_counts((9, 5))
  network.export(tmp_path / "net", form, execution=execution)
  logits, kept = load_artifact(tmp_path / "net")(images)[:2]
  expected = network(images, "fixed" if execution == "fixed" else "masked")
  np.testing.assert_array_equal(kept, expected.kept)
  np.testing.assert_allclose(logits, expected.logits, atol=1e-4)
