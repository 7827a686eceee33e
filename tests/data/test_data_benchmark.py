import processes
import pytest
import tiny
from image_sets import PREPROCESSING

from asvit_jax.data import benchmark


def test_the_benchmark_accounts_for_all_the_time_of_a_core(folder):
  config = tiny.config(folder, batch_size=4, **{"data.rand_augment": 9.0, "data.repeats": 2})
  result = benchmark.measure(tiny.plan(config), PREPROCESSING, batches=2, rounds=1)
  assert result["images_per_s_a_core"] > 0
  assert result["images_per_s"] > 0
  parts = {"decode", "random_resized_crop", "rand_augment", "other"}
  assert set(result["shares"]) == parts
  assert sum(result["shares"].values()) == pytest.approx(1)
  assert min(result["shares"].values()) > 0


@pytest.mark.parametrize(
  ("key", "message"),
  [
    ("dir=", "--config.data.dir is not set"),
    pytest.param(
      "crop_ratio=1.5", "--config.data.crop_ratio 1.5 is not valid", marks=pytest.mark.slow
    ),
  ],
)
def test_the_command_says_what_it_needs(repository, key, message):
  recipe = repository / "configs" / "digits.py"
  flags = ("--config", recipe, f"--config.data.{key}")
  process = processes.run("-m", "asvit_jax.data.benchmark", *flags)
  assert (process.returncode, process.stdout) == (2, "")
  assert f"error: {message}" in process.stderr
