"""Every execution and every backend is compared with masked; one that is wrong is found."""

import jax
import pytest
import tiny

from asvit_jax.measure import correctness
from asvit_jax.measure.subjects import Subject
from asvit_jax.sparsity.executions import flat_backends

PLAIN = flat_backends.PlainXLA


class Wrong(PLAIN):
  """Its MLP forgets one part in fifty."""

  name = "wrong"

  def fed_forward(self, block, x, layout):
    return x + 0.98 * (super().fed_forward(block, x, layout) - x)


class Elsewhere(Wrong):
  """A backend of another platform: only its interpreted copy is right here."""

  name = "elsewhere"
  interpreted = PLAIN()


class Raises(PLAIN):
  def attended(self, *_):
    raise NotImplementedError("no such device")


class Choosy(PLAIN):
  name = "choosy"

  def refuses(self, arch, dtype):
    return f"it takes no width {arch.width}"


@pytest.fixture(scope="module")
def one():
  arch = tiny.arch(depth=3, prune_before=(1, 2))
  images = tiny.images(arch, 4)
  params = tiny.with_thresholds(arch, tiny.params(arch), images, (0.7, 0.4))
  network = tiny.network(arch).with_params(params).with_counts((10, 6))
  return Subject(network, images, None)


@pytest.fixture
def run(one, monkeypatch, short_ladders):
  monkeypatch.setattr(correctness, "subject", lambda *_: one)

  def with_backends(**backends):
    patched = {"cpu": (PLAIN(),), "tpu": (PLAIN(),), "cuda": (PLAIN(),)} | backends
    monkeypatch.setattr(flat_backends, "BACKENDS", patched)
    rows = correctness.run(one.network.arch, "drop", "float32", (0.65,), 4)
    return {row.pop("what"): row for row in rows}

  return with_backends


def test_executions_and_backends_of_all_platforms(run):
  found = run(tpu=(Elsewhere(), PLAIN()), cuda=(Choosy(), PLAIN()))
  assert set(found) == {
    *("packed", "fixed", "flat by plain XLA"),
    "flat by elsewhere, interpreted",  # choosy has no `interpreted`
  }
  wrong = [(what, row) for what, row in found.items() if not row["agrees"] or row["same"] != 4]
  assert wrong == []


def test_what_is_wrong_refused_or_fails(run):
  class Broken(Elsewhere):
    name = "broken"
    interpreted = Raises()

  choosy = Choosy()
  choosy.interpreted = choosy
  found = run(cpu=(PLAIN(), Wrong()), tpu=(Broken(),), cuda=(choosy,))
  assert found["flat by wrong"]["agrees"] is False
  assert found["flat by broken, interpreted"] == {
    "agrees": False,
    "error": "NotImplementedError: no such device",
  }
  assert found["flat by choosy, interpreted"] == {"refused": "it takes no width 24"}
  assert found["packed"]["agrees"] and found["flat by plain XLA"]["agrees"]


def test_each_platform_runs_its_own_and_interprets_the_others(monkeypatch):
  other = Elsewhere()
  monkeypatch.setattr(
    *(flat_backends, "BACKENDS", {"cpu": (PLAIN(),), "tpu": (other, PLAIN()), "cuda": (PLAIN(),)})
  )
  assert [(n, i) for n, _, i in correctness.available("cpu")] == [
    ("plain XLA", False),
    ("elsewhere", True),
  ]
  assert correctness.available("tpu")[0] == ("elsewhere", other, False)
  assert [n for n, _, _ in correctness.available("gpu")] == ["plain XLA", "elsewhere"]


def test_thresholds_of_counts_keep_just_as_many(one):
  image = one.images[2]
  thresholds = correctness._keeping(one.network, image, (9, 5))
  kept = one.network.with_thresholds(thresholds)(image[None], "masked").kept
  assert jax.device_get(kept).tolist() == [[9, 5]]
