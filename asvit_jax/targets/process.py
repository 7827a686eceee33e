"""Runs jobs in a process of its own, whose environment makes JAX compile for a target.

`run` starts the process, `python -m asvit_jax.targets.process`, which runs `main`: it reads a job
as JSON from stdin and writes its result to stdout. A job is a dictionary of `what`, a name in
`_JOBS`; `target`, the name of the target; and the arguments of that function.
"""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys

from absl import flags

from asvit_jax.core.errors import InputError
from asvit_jax.targets import chips

# Compile without the device, on which the compiler would tune programs.
_NO_DEVICE = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"


def run(job, target):
  """Runs a job in a process of its own, which writes its progress to this process's stderr.

  Args:
    job: the dictionary of the job, for JSON, without `target`.
    target: the `chips.Target`.

  Returns:
    The result of the job, a dictionary.

  Raises:
    InputError: the job raised it; or the compiler is not installed, or ended with an error.
  """
  command = [sys.executable, "-m", "asvit_jax.targets.process"]
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
    advice = ", probably as memory ran out" if code == -signal.SIGKILL else ""
    raise InputError(
      f"--target {target.name}: the compiler's process ended with {name}{advice}; its messages "
      "are above"
    )
  answer = json.loads(process.stdout.splitlines()[-1])
  if "error" in answer:
    raise InputError(answer["error"])
  return answer


def environment(target):
  """The environment of a process that compiles for a target.

  Args:
    target: the `chips.Target`.

  Returns:
    {name: value} of all variables, those of this process included.

  Raises:
    InputError: the compiler is not installed.
  """
  of_xla = [os.environ.get("XLA_FLAGS", "")]
  # JAX has as many CPU devices as the target has devices.
  of_xla.append(f"--xla_force_host_platform_device_count={target.devices}")
  ours = {
    "JAX_PLATFORMS": "cpu",  # nothing runs on an accelerator, so JAX need not look for one
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # `compile_s` is the time to compile
    "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    "TF_CPP_MIN_LOG_LEVEL": "3",
  }
  if target.chip.platform == "tpu":
    _check_tpu(target)
    ours |= {
      # The process owns no chip, so no lock of another process, even a killed one, concerns it.
      "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
      # There is no metadata server to ask.
      "TPU_SKIP_MDS_QUERY": "1",
      "TPU_ACCELERATOR_TYPE": f"{target.kind}-{target.devices}",
      "TPU_WORKER_HOSTNAMES": "localhost",
      "TPU_LOG_DIR": "disabled",
      "TPU_MIN_LOG_LEVEL": "3",
      "TPU_STDERR_LOG_LEVEL": "3",
    }
  else:
    toolkit = _check_cuda(target)
    of_xla.append(f"{_NO_DEVICE} --xla_gpu_cuda_data_dir={toolkit}")
    ours["PATH"] = f"{toolkit / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
  ours["XLA_FLAGS"] = " ".join(of_xla)
  return os.environ | ours


def _check_tpu(target):
  if importlib.util.find_spec("libtpu") is None:
    raise _missing(target, "the compiler for TPUs, libtpu, is not installed")


def _check_cuda(target):
  """The directory of ptxas and libdevice; raises InputError if it or the plugin is missing."""
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


def _missing(target, problem):
  return InputError(
    f"--target {target.name}: {problem}; install the extra `target` (jax[tpu,cuda12-local] and "
    "nvidia-cuda-nvcc-cu12) in the clone, best into a separate environment: "
    "python3 -m venv .venv-target && .venv-target/bin/pip install '.[target]'"
  )


def main():
  """Reads a job from stdin, runs it, and prints its result; an InputError becomes `error` in it."""
  flags.FLAGS.mark_as_parsed()  # libraries read absl's flags
  try:
    job = json.load(sys.stdin)
  except ValueError:
    sys.exit("error: this module is started by --target, and is no tool of its own")
  try:
    result = _JOBS[job.pop("what")](target=chips.parse_target(job.pop("target")), **job)
  except InputError as error:
    result = {"error": str(error)}
  print(json.dumps(result), flush=True)


def _training(target, config):
  from asvit_jax.config import base
  from asvit_jax.config.plan import resolve
  from asvit_jax.targets.programs import compile_run

  described = base()
  described.update(config)
  return compile_run(resolve(described), target)


def _inference(target, architecture, **rest):
  from asvit_jax.targets.programs import compile_inference
  from asvit_jax.vit import Architecture

  return compile_inference(target, Architecture.from_json(architecture, "the job"), **rest)


def _check(target, **check):
  from asvit_jax.targets.check import compile_one

  return compile_one(target, **check)


def _times(target, architecture, **rest):
  from asvit_jax.targets.times import compile_parts
  from asvit_jax.vit import Architecture

  return compile_parts(target, Architecture.from_json(architecture, "the job"), **rest)


def _bundles(target, architecture, **rest):
  from asvit_jax.targets.bundles import of_kernels
  from asvit_jax.vit import Architecture

  return of_kernels(target, Architecture.from_json(architecture, "the job"), **rest)


def _cycles(target, architecture, **rest):
  from asvit_jax.targets.bundles import cycles_of
  from asvit_jax.vit import Architecture

  return cycles_of(target, Architecture.from_json(architecture, "the job"), **rest)


def _step_kernels(target, **rest):
  from asvit_jax.targets.step_bundles import of_kernels

  return of_kernels(target, **rest)


def _step_parts(target, **rest):
  from asvit_jax.targets.step_bundles import of_parts

  return of_parts(target, **rest)


def _step_cycles(target, **rest):
  from asvit_jax.targets.step_bundles import cycles_of

  return cycles_of(target, **rest)


_JOBS = {
  "training": _training,
  "inference": _inference,
  "check": _check,
  "times": _times,
  "bundles": _bundles,
  "cycles": _cycles,
  "step kernels": _step_kernels,
  "step parts": _step_parts,
  "step cycles": _step_cycles,
}

if __name__ == "__main__":
  main()
