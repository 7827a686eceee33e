"""Times of a TPU that is not here: its compiler in the tests is a formula, or this CPU's."""

import dataclasses
import json

import jax
import paced
import pytest
import tiny
from command_lines import run

from asvit_jax.core.errors import InputError
from asvit_jax.network import load
from asvit_jax.pacing import table
from asvit_jax.targets import compiling, process, times
from asvit_jax.targets.chips import TPUS
from asvit_jax.vit import Architecture

ARCH = tiny.TRAINED
TARGET = "tpu:v5e:1x1"
BATCH = 4

pytestmark = pytest.mark.usefixtures("short_ladders")


@pytest.fixture
def network():
  return tiny.network(ARCH, variant="tiny").dense


@pytest.fixture
def jobs(monkeypatch, tmp_path):
  """The jobs that the compiler was given, which takes what `paced` does; a new cache."""
  found = []

  def answer(job, target):
    found.append((job, target.name))
    arch = Architecture.from_json(job["architecture"], "the job")
    of = tiny.network(arch).dense
    keys = table.programs(of, job["batch"], "tpu")
    ms = {"embed": lambda n: paced.EMBED} | paced.PARTS
    rows = {"block": 4, "attended": 4, "fed_forward": 4}  # so many are in a row
    return {"ms": [[*key, rows.get(key[1], 1) * float(ms[key[1]](key[2]))] for key in keys]}

  monkeypatch.setattr(process, "run", answer)
  monkeypatch.setattr(process, "environment", lambda target: {})
  monkeypatch.setattr(times.importlib.metadata, "version", lambda name: "0.0.42")
  monkeypatch.setenv("ASVIT_CACHE", str(tmp_path / "kept"))
  return found


def test_estimates_are_made_once_and_kept(jobs, network):
  found = times.estimated_times(network, TARGET, BATCH)
  assert found.estimated
  assert (found.platform, found.batch, found.call) == ("tpu", BATCH, 0.0)
  assert "v5e" in found.device
  assert "estimates" in found.device
  assert times.estimated_times(network, "tpu:v5e:2x4", BATCH) == found  # a chip is a chip
  assert len(jobs) == 1
  times.estimated_times(network, "tpu:v6e:1x1", BATCH)
  times.estimated_times(network, TARGET, 2 * BATCH)
  assert len(jobs) == 3


def test_the_dense_network_is_the_sum_of_its_parts(jobs, network):
  found = times.estimated_times(network, TARGET, BATCH)
  tokens = ARCH.prefix_tokens + ARCH.patches
  blocks = (ARCH.depth - 1) * paced.block(tokens) + paced.last(tokens)
  assert found.dense == pytest.approx(paced.EMBED + blocks)  # all four at once


def test_a_network_is_calibrated_for_what_is_not_here(jobs, network, tmp_path):
  given = times.estimated_times(network, TARGET, BATCH)
  images = tiny.images(ARCH, 12)
  found = network.calibrate(images, speedup=1.4, times=given)
  (speed,) = found.speedups
  assert speed.reached is None
  assert speed.predicted == pytest.approx(1.4, rel=0.1)
  assert (speed.batch, speed.device) == (BATCH, given.device)
  path = tmp_path / "w.safetensors"
  found.save(path)
  assert load(path).speedups == found.speedups


def test_times_of_another_network_or_batch_are_refused(jobs, network):
  given = times.estimated_times(network, TARGET, BATCH)
  images = tiny.images(ARCH, 4)
  other = dataclasses.replace(network, dtype="bfloat16")
  with pytest.raises(InputError, match="times are of another network"):
    other.calibrate(images, speedup=1.4, times=given)
  with pytest.raises(InputError, match="batch 8 contradicts the times, which are of batches of 4"):
    network.calibrate(images, speedup=1.4, batch=8, times=given)


@pytest.mark.usefixtures("tiny_variant")
def test_evaluate_calibrates_for_a_target(jobs, network, folder, tmp_path):
  network.save(tmp_path / "dense.safetensors")
  recipe = tiny.write_recipe(tmp_path / "recipe.py", folder)
  options = ("--config", recipe, "--weights", tmp_path / "dense.safetensors")
  asked = ("--calibrate-speedup", "1.4", "--speed-batch", BATCH, "--target", TARGET)
  result = run("evaluate", *options, *asked, "--calibrate-split", "train")
  (speed,) = result["speedups"]
  assert (speed["asked"], speed["reached"]) == (1.4, None)
  json.dumps(result)
  with pytest.raises(InputError, match="--target tpu:v5e:1x1 is the device of --calibrate-sp"):
    run("evaluate", *options, "--target", TARGET)
  with pytest.raises(InputError, match=r"--target gpu:h100: the compiler .* expected a TPU"):
    run("evaluate", *options, *asked[:-1], "gpu:h100")


def test_the_worker_compiles_every_part(monkeypatch):
  """For this CPU in place of the target; its text says no cycles."""
  monkeypatch.setattr(compiling, "devices", lambda target: jax.devices())
  monkeypatch.setattr(table, "WIDTHS", 2)
  monkeypatch.setattr(times, "count_cycles", len)
  target = times.tpu_target(TARGET)
  arch = dataclasses.replace(ARCH, prune_inside=True)
  found = times.compile_parts(target, arch, "float32", BATCH)["ms"]
  keys = [tuple(key) for *key, _ in found]
  assert keys == list(table.programs(tiny.network(arch).dense, BATCH, "tpu"))
  assert {part for _, part, _ in keys} == {"embed", *table.PARTS}
  assert all(ms > 1e3 * 1000 / TPUS["v5e"].clock for *_, ms in found)  # long texts
