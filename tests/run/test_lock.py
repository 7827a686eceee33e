"""One run a workdir."""

import os
import signal
import subprocess
import sys

import processes
import pytest

from asvit_jax.core.errors import InputError
from asvit_jax.run import lock

# Holds the lock until it is killed, with a child that outlives it for a while.
HOLDER = """
import subprocess, sys, time
from asvit_jax.run import lock
with lock.held(sys.argv[1]):
  child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
  print("holds it", child.pid, flush=True)
  time.sleep(60)
"""


def test_a_second_run_is_refused_while_the_first_lives_and_by_name(tmp_path):
  workdir = tmp_path / "run"
  lock.check(workdir)
  assert not workdir.exists()
  with lock.held(workdir):
    for second in (lock.held(workdir).__enter__, lambda: lock.check(workdir)):
      with pytest.raises(
        InputError, match=f"another run writes to .*run: process {os.getpid()} on"
      ):
        second()
  lock.check(workdir)
  with lock.held(workdir) as check:
    check()


def test_a_killed_run_leaves_no_lock_behind(tmp_path):
  process = subprocess.Popen(
    [sys.executable, "-c", HOLDER, str(tmp_path)],
    env=processes.environment(),
    stdout=subprocess.PIPE,
    text=True,
  )
  child = int(process.stdout.readline().split()[-1])
  try:
    with pytest.raises(InputError, match=f"process {process.pid} on "):
      lock.check(tmp_path)
    process.kill()
    process.wait()
    lock.check(tmp_path)
  finally:
    os.kill(child, signal.SIGKILL)
    process.kill()
    process.stdout.close()
