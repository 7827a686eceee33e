import importlib.metadata
import importlib.util
import subprocess
import sys

import pytest
from command_lines import run

from asvit_jax.core.errors import InputError
from asvit_jax.targets import names, process

DEIT = ("--config", "configs/as_deit_s.py:0.65")
TPU, GPU = names.parse("tpu:v5e:2x4"), names.parse("gpu:h100:2")


@pytest.fixture
def without_compilers(monkeypatch):
  """As where requirements-target.txt is not installed."""
  find, version = importlib.util.find_spec, importlib.metadata.version

  def no_such_version(name):
    if name.startswith("jax-cuda"):
      raise importlib.metadata.PackageNotFoundError(name)
    return version(name)

  monkeypatch.setattr(
    importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name)
  )
  monkeypatch.setattr(importlib.metadata, "version", no_such_version)


@pytest.mark.usefixtures("without_compilers")
@pytest.mark.parametrize(
  ("command", "arguments"), [("train", (*DEIT, "--dry-run")), ("benchmark", ())]
)
@pytest.mark.parametrize(
  ("target", "missing"), [("tpu:v5e:2x4", "libtpu"), ("gpu:a100", "jax-cuda12-plugin")]
)
def test_without_the_compiler_it_says_what_to_install(command, arguments, target, missing):
  with pytest.raises(InputError) as error:
    run(command, *arguments, "--target", target)
  assert f"--target {target}" in str(error.value)
  assert f"{missing}, is not installed" in str(error.value)
  assert "pip install -r requirements-target.txt" in str(error.value)


def test_a_plugin_of_another_jax_is_refused(monkeypatch):
  versions = {"jax-cuda12-plugin": "0.9.0", "jax": "0.10.2"}
  monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
  with pytest.raises(InputError, match=r"jax-cuda12-plugin is 0\.9\.0, and jax 0\.10\.2"):
    process.environment(GPU)


def test_the_process_has_as_many_devices_and_looks_for_no_accelerator(monkeypatch):
  """Whatever the user has set; asked of a process with its variables."""
  monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
  monkeypatch.setenv("JAX_PLATFORMS", "tpu")
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
  script = "import jax; print(jax.default_backend(), jax.device_count())"
  said = subprocess.run(
    [sys.executable, "-c", script], env=process.environment(TPU), capture_output=True, text=True
  )
  assert said.stdout.split() == ["cpu", "8"], said.stderr


def test_a_compiler_that_dies_is_one_error(monkeypatch):
  monkeypatch.setattr(process, "environment", lambda target: {})
  monkeypatch.setattr(process.sys, "executable", "/bin/false")
  with pytest.raises(InputError, match="the compiler's process ended with exit status 1"):
    process.run({"what": "training"}, TPU)


@pytest.mark.parametrize(
  ("command", "arguments", "said"),
  [
    ("train", (*DEIT, "--target", "tpu:v5e:2x4"), "without --dry-run"),
    ("train", (*DEIT, "--dry-run", "--target", "tpu:v9"), "'v9' is not known"),
    ("benchmark", ("--target", "gpu:h100", "--plot", "p.png"), "leave --weights, --images and"),
    ("benchmark", ("--target", "gpu:h100", "--execution", "top_k"), "'top_k' is not known"),
    ("benchmark", ("--target", "gpu:h100", "--budget", 2), "budget 2 is not in"),
  ],
)
def test_flags_that_cannot_work_are_refused_before_anything_starts(
  monkeypatch, command, arguments, said
):
  monkeypatch.setattr(process, "run", lambda *_: pytest.fail("it started"))
  with pytest.raises(InputError, match=said):
    run(command, *arguments)
