"""Worker processes: forked from one server, and what is said where one of them dies."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from image_sets import PREPROCESSING, make_config, open_source

from asvit_jax.core.errors import InputError
from asvit_jax.data import loader, workers


def status(process_id, key):
  """A line of /proc/…/status or of its summary of memory, as text."""
  for file in ("status", "smaps_rollup"):
    for line in Path(f"/proc/{process_id}/{file}").read_text().splitlines():
      if line.startswith(f"{key}:"):
        return line.split()[1]
  raise KeyError(key)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads Linux's /proc")
def test_workers_share_the_imports_of_a_server_and_die_with_a_reason(folder):
  config = make_config(dir=folder, workers=2)
  batches = loader.train_batches(config, open_source(config), PREPROCESSING)
  next(batches)
  children = [child.pid for child in multiprocessing.active_children()]
  parents = {int(status(pid, "PPid")) for pid in children}
  assert len(children) == 2
  assert len(parents) == 1  # not this process, which has JAX and more to carry
  assert parents != {os.getpid()}
  # An import of Grain alone takes 80 MB of each.
  assert all(int(status(pid, "Private_Dirty")) < 60_000 for pid in children)

  for pid in (*parents, *children):
    os.kill(pid, signal.SIGTERM)  # as launchers do, to end the run; it saves first, and needs data
  time.sleep(0.2)
  for _ in range(8):  # more than was ready
    next(batches)

  os.kill(children[0], signal.SIGBUS)  # what a full /dev/shm does
  with pytest.raises(InputError, match=r"exit code -7.*/dev/shm, .* is full .*--shm-size"):
    for _ in range(8):
      next(batches)


@pytest.mark.parametrize(
  ("code", "said", "not_said"),
  [
    (-signal.SIGKILL, r"too little memory .*: lower data\.workers", "/dev/shm"),
    (-signal.SIGBUS, r"/dev/shm, .*is full \(it holds \d+ MiB.*--shm-size.*emptyDir", "dmesg"),
    (-signal.SIGSEGV, r"ended by SIGSEGV, .*data\.workers=0", "too little memory"),
    (-63, "ended by signal 63", "too little memory"),
    (3, r"exit code 3.*: its output above says why; rerun the command", "memory"),
  ],
)
def test_an_exit_code_leads_to_what_to_do(code, said, not_said):
  def batches():
    yield 1
    raise RuntimeError(f"Worker process was terminated unexpectedly with exit code {code}. Search")

  iterator = batches()
  assert workers.following(iterator) == 1
  with pytest.raises(InputError, match=said) as error:
    workers.following(iterator)
  assert not_said not in str(error.value)
