import numpy as np
import pytest
import tiny

from asvit_jax.evaluation import latency

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


@pytest.mark.usefixtures("short_ladders")
def test_requests_of_any_size_compile_nothing_after_the_warm_up(monkeypatch):
  monkeypatch.setattr(latency, "SIZES", (1, 3))
  found = latency.run(tiny.network(tiny.arch()), IMAGES, requests=8)
  assert found["compilations"] == 0
  for kind in ("single", "mixed"):
    for name in ("dense", "packed"):
      times = found[kind][name]
      assert 0 < times["p50_ms"] <= times["p99_ms"]
      assert times["images_per_s"] > 0
  assert len(latency.table(found).splitlines()) == 5
