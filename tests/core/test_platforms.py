"""Errors of JAX's platform, as the command lines say them."""

import jax
import pytest
from command_lines import assert_one_error, call

from asvit_jax.core import platforms


@pytest.mark.parametrize("platform", ["tpu", pytest.param("cuda", marks=pytest.mark.slow)])
def test_a_platform_that_is_not_here_is_one_error(tmp_path, monkeypatch, platform):
  monkeypatch.setenv("JAX_PLATFORMS", platform)
  process = call("train.py", "--config", "digits", "--workdir", tmp_path / "run")
  assert_one_error(process, f"JAX_PLATFORMS={platform} here", "unset JAX_PLATFORMS")
  assert not (tmp_path / "run").exists()


def test_too_little_memory_is_told_from_other_errors():
  full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
  assert "lower batch_size" in platforms.describe(full)
  assert platforms.describe(jax.errors.JaxRuntimeError("INTERNAL: no")) is None
  assert platforms.describe(RuntimeError("RESOURCE_EXHAUSTED")) is None
