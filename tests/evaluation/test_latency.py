import jax
import numpy as np
import pytest
import tiny

from asvit_jax.evaluation import latency

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


@pytest.mark.slow
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
  lines = latency.table(found).splitlines()[1:]
  assert [line.split()[:2] for line in lines] == [
    [kind, name] for kind in ("single", "mixed") for name in ("dense", "packed")
  ]


def test_what_compiles_among_the_requests_is_counted(monkeypatch):
  """A server that fills nothing up compiles for each size that it sees."""
  monkeypatch.setattr(latency, "SIZES", (1, 3))

  class Unprepared:
    def __init__(self):
      self.run = jax.jit(lambda images: images.astype("float32").mean())

    def warm_up(self, image):
      self.run(image[None])

    def __call__(self, images):
      return np.asarray(self.run(images))

  monkeypatch.setattr(latency, "_server", lambda network, execution: Unprepared())
  assert latency.run(None, IMAGES, requests=20)["compilations"] == 4  # of 2 and 3 images, by both


def test_times_are_percentiles_and_images_of_all_requests_a_second():
  found = latency._summary(np.arange(1, 102) / 1000, images=202)
  assert (found["p50_ms"], found["p99_ms"]) == (pytest.approx(51), pytest.approx(100))
  assert found["images_per_s"] == pytest.approx(202 / np.arange(1, 102).sum() * 1000)
