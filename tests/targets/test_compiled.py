"""What a user does, with the compilers of the extra `target`."""

import importlib.util

import pytest
from command_lines import answer, assert_one_error, call

pytestmark = pytest.mark.external
SMALL = (
  *("--config", "configs/as_deit_t.py:0.8", "--config.model.depth=2", "--config.model.width=48"),
  *("--config.model.prune_before=1,", "--config.model.image_size=64"),
)


def needs(library):
  """Skips where a compiler is not installed."""
  if importlib.util.find_spec(library) is None:
    pytest.skip(f"{library} is not installed: pip install '.[target]'")


@pytest.mark.parametrize(
  ("target", "library", "counts"),
  [("tpu:v5e:2x4", "libtpu", "compiler"), ("gpu:h100:2", "jax_cuda12_plugin", "formula")],
)
def test_a_dry_run_says_what_a_target_would_need(target, library, counts):
  needs(library)
  batches = ("--config.batch_size=16", "--config.eval.batch_size=16")
  result = answer("train.py", *SMALL, *batches, "--dry-run", "--target", target)
  assert result["fits"]
  assert 0 < result["memory_mb"] < result["memory_available_mb"]
  assert result["largest_batch"] > 16
  assert result["largest_batch_memory_mb"] <= result["memory_available_mb"]
  assert result["flops_from"] == counts
  assert min(result["flops"], result["bytes"], result["compile_s"], result["estimated_ms"]) > 0
  assert set(result["programs"]) == {"step", "evaluation", "packed"}


def test_a_batch_for_other_devices_is_one_error():
  needs("libtpu")
  process = call(
    "train.py", *SMALL, "--dry-run", "--target", "tpu:v5e:8x8", "--config.batch_size=8"
  )
  assert_one_error(process, "batch_size 8", "a multiple of 64, the number of devices")
