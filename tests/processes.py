"""Python in processes of its own: with virtual CPU devices, as one host or as several."""

import os
import socket
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent


def environment(devices=1, **variables):
  """That of a process with virtual devices, which imports the package and what tests import.

  Args:
    devices: number of them.
    **variables: more of them.
  """
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
  folders = sorted(path for path in TESTS.iterdir() if path.is_dir())  # `import test_training` too
  paths = os.pathsep.join(map(str, (REPOSITORY, TESTS, *folders)))
  return os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": paths} | variables


def command(*arguments):
  """A Python command: `"-c", script, …`, `"-m", module, …` or `file, …`."""
  return [sys.executable, *map(str, arguments)]


def run(*arguments, devices=1, **options):
  """Runs `command` to its end.

  Args:
    *arguments: of `command`.
    devices: number of virtual devices.
    **options: of `subprocess.run`.

  Returns:
    `subprocess.CompletedProcess`, with stdout and stderr as text.
  """
  return subprocess.run(
    command(*arguments), env=environment(devices), capture_output=True, text=True, **options
  )


def succeed(*arguments, **options):
  """As `run`, which must end well; returns what it wrote to stdout."""
  process = run(*arguments, **options)
  assert process.returncode == 0, process.stderr[-5000:]
  return process.stdout


def run_hosts(count, *arguments, devices=1, log):
  """Runs `command` on so many hosts at once; one of them has no coordinator.

  Args:
    count: number of hosts.
    *arguments: of `command`.
    devices: of each host.
    log: function of the index of a host that returns the file which gets its stderr: a pipe that
      nobody reads would fill up.

  Returns:
    The exit status of each.
  """
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  several = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
  running = []
  for i in range(count):
    variables = several | {"JAX_PROCESS_ID": str(i)} if count > 1 else {}
    with Path(log(i)).open("w") as file:
      running.append(
        subprocess.Popen(command(*arguments), env=environment(devices, **variables), stderr=file)
      )
  try:
    return [process.wait(timeout=240) for process in running]
  finally:
    for process in running:
      process.kill()
