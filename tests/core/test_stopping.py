"""Signals: the first one ends a process in order, the second at once."""

import os
import signal
import subprocess
import time

import processes
import pytest

from asvit_jax.core import hosts, stopping


def test_signals_that_come_together_are_one():
  done = []
  count = stopping.Count([2, 15], lambda n: done.append(("first", n)), lambda n: done.append(n))
  for number, now in ((17, 0.0), (15, 1.0), (15, 1.01), (2, 1.2), (17, 3.0), (2, 3.0)):
    count(number, now)
  assert done == [("first", 15), 2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_notes_a_signal_and_leaves_the_handlers_as_they_were(number, capsys):
  before = signal.getsignal(number)
  with hosts.StopSignal() as stop:
    assert not stop.noticed()
    os.kill(os.getpid(), number)
    assert stop.noticed()
    assert stop.received(1)
    time.sleep(0.05)  # for the thread that says so
  assert signal.getsignal(number) == before
  assert hosts.StopSignal.last == number
  assert f"told to stop ({signal.Signals(number).name})" in capsys.readouterr().err


def test_what_nohup_ignores_stays_ignored():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with hosts.StopSignal() as stop:
      os.kill(os.getpid(), signal.SIGHUP)
      assert not stop.noticed()
  finally:
    signal.signal(signal.SIGHUP, before)


HANGING = """
import sys, threading, time
from asvit_jax.core import hosts, stopping

lock = threading.Lock()
with stopping.interruptible():
  if sys.argv[1] == "run":
    with hosts.StopSignal():
      lock.acquire()
      print("hangs", flush=True)
      lock.acquire()  # main thread: handlers run, but nobody looks
  try:
    print("hangs", flush=True)
    time.sleep(1000)
  finally:
    print("cleaned up", flush=True)
"""


def start(kind):
  process = subprocess.Popen(
    processes.command("-c", HANGING, kind),
    env=processes.environment(),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "hangs\n"
  return process


def end(process):
  try:
    return process.communicate(timeout=240)
  finally:
    process.kill()


def test_ctrl_c_ends_a_command_in_a_line_and_cleans_up():
  process = start("command")
  process.send_signal(signal.SIGINT)
  out, said = end(process)
  assert (process.returncode, out, said) == (130, "cleaned up\n", "interrupted\n")


COLLECTING = """
import gc, signal, time
from asvit_jax.core import stopping

def collecting(phase, info):
  if phase == "start" and not sent:
    sent.append(True)
    try:
      signal.raise_signal(signal.SIGINT)
    finally:
      time.sleep(0.5)  # so long ago that another signal counts as a second Ctrl-C

sent = []
gc.callbacks.append(collecting)
with stopping.interruptible():
  gc.collect()
  time.sleep(5)
  print("went on")
"""


def test_a_ctrl_c_while_python_collects_garbage_is_not_lost():
  process = processes.run("-c", COLLECTING)
  assert (process.returncode, process.stdout, process.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_a_run_that_hangs(number):
  process = start("run")
  for _ in range(2):
    process.send_signal(number)
    time.sleep(1.5 * stopping._TOGETHER)
  _, said = end(process)
  assert process.returncode == 128 + number
  assert said.splitlines()[-1] == f"ended at once ({number.name})"
  assert "Traceback" not in said
