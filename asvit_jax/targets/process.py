"""A process of its own whose JAX compiles for a target, so that the user has to set nothing."""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys

from asvit_jax.core.errors import InputError

# Compilers without the device that they tune programs on.
_NO_DEVICE = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"


def run(job, target):
  """Runs a job of `worker` in a process of its own.

  Args:
    job: its dictionary, for JSON; the target is added.
    target: a `names.Target`.

  Returns:
    What the job returns. What it says on stderr has been said.

  Raises:
    InputError: the job's own; the compiler is not installed, or dies.
  """
  command = [sys.executable, "-m", "asvit_jax.targets.worker"]
  process = subprocess.run(
    command,
    input=json.dumps(job | {"target": target.name}),
    stdout=subprocess.PIPE,
    text=True,
    env=environment(target),
  )
  if process.returncode:
    code = process.returncode
    name = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    advice = ", which is what Linux does where memory is short" if code == -signal.SIGKILL else ""
    raise InputError(
      f"--target {target.name}: the compiler's process ended with {name}{advice}; what it said "
      "stands above"
    )
  answer = json.loads(process.stdout.splitlines()[-1])
  if "error" in answer:
    raise InputError(answer["error"])
  return answer


def environment(target):
  """The variables of such a process; raises InputError where the compiler is not installed."""
  flags = [os.environ.get("XLA_FLAGS", "")]
  flags.append(f"--xla_force_host_platform_device_count={target.devices}")  # as many as there
  ours = {
    "JAX_PLATFORMS": "cpu",  # nothing runs, and nobody looks for an accelerator
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # the seconds are those of compiling
    "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    "TF_CPP_MIN_LOG_LEVEL": "3",
  }
  if target.chip.platform == "tpu":
    _check_tpu(target)
    ours |= {
      # It only compiles and owns no chip: no lock to wait for, nor one that a killed process left.
      "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
      # Not asked of a metadata server that is not there.
      "TPU_SKIP_MDS_QUERY": "1",
      "TPU_ACCELERATOR_TYPE": f"{target.kind}-{target.devices}",
      "TPU_WORKER_HOSTNAMES": "localhost",
      "TPU_LOG_DIR": "disabled",
      "TPU_MIN_LOG_LEVEL": "3",
      "TPU_STDERR_LOG_LEVEL": "3",
    }
  else:
    toolkit = _check_cuda(target)
    flags.append(f"{_NO_DEVICE} --xla_gpu_cuda_data_dir={toolkit}")
    ours["PATH"] = f"{toolkit / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
  ours["XLA_FLAGS"] = " ".join(flags)
  return os.environ | ours


def _check_tpu(target):
  if importlib.util.find_spec("libtpu") is None:
    raise _missing(target, "the compiler for TPUs, libtpu, is not installed")


def _check_cuda(target):
  """The directory of ptxas and libdevice; raises InputError where that or the plugin is not."""
  try:
    plugin = importlib.metadata.version("jax-cuda12-plugin")
  except importlib.metadata.PackageNotFoundError:
    raise _missing(
      target, "the compiler for NVIDIA's GPUs, jax-cuda12-plugin, is not installed"
    ) from None
  jax = importlib.metadata.version("jax")
  if plugin != jax:
    raise _missing(target, f"jax-cuda12-plugin is {plugin}, and jax {jax}: they must be the same")
  found = importlib.util.find_spec("nvidia")
  for directory in (found.submodule_search_locations or ()) if found else ():
    toolkit = pathlib.Path(directory) / "cuda_nvcc"
    if (toolkit / "bin" / "ptxas").is_file():
      return toolkit
  raise _missing(target, "ptxas, of nvidia-cuda-nvcc-cu12, is not installed")


def _missing(target, what):
  return InputError(
    f"--target {target.name}: {what}; install the extra `target` (jax[tpu,cuda12-local] and "
    "nvidia-cuda-nvcc-cu12) in the clone, best into a separate environment: "
    "python3 -m venv .venv-target && .venv-target/bin/pip install '.[target]'"
  )
