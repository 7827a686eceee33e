"""A command whose stdout or stderr is closed, full, or read by nobody; and what a user can mend."""

import errno
import json
import os
import re
import subprocess

import processes
import pytest

from asvit_jax.core import failures, platforms
from asvit_jax.core.errors import InputError

# A command that says something on the way, and gives a result with what JSON does not have.
MAIN = (
  "from asvit_jax.core import command\nfrom asvit_jax.core.progress import log\n"
  "def main(_):\n  open('done', 'w').close()\n"
  "  return {'a': float('nan'), 'b': 'x\\udcff', 'n': __import__('numpy').float32(2)}\n"
  "command.run(main)\n"
)
RESULT = {"a": None, "b": "x\\udcff", "n": 2.0}


def shell(tmp_path, streams, script=MAIN):
  """Runs a script of Python in a shell, with redirections or a pipe behind it."""
  (tmp_path / "script.py").write_text(script)
  line = f"set -o pipefail; {processes.command()[0]} script.py {streams}"
  return subprocess.run(
    ["bash", "-c", line], cwd=tmp_path, env=processes.environment(), capture_output=True, text=True
  )


def test_a_result_is_json_whatever_it_holds(tmp_path):
  process = shell(tmp_path, "")
  assert (process.returncode, json.loads(process.stdout)) == (0, RESULT)


@pytest.mark.parametrize(
  ("streams", "reason"),
  [
    (">/dev/full", "No space left on device"),
    (">&-", "it is closed"),
    ("| (exec <&-; sleep 0.5)", "Broken pipe"),
    ("<&- >&-", "it is closed"),
  ],
)
def test_a_result_that_stdout_cannot_take_is_one_line_and_a_failure(tmp_path, streams, reason):
  process = shell(tmp_path, streams)
  assert process.returncode == 1
  lines = process.stderr.splitlines()
  assert len(lines) == 1 and lines[0].startswith("error: stdout cannot be written"), process.stderr
  assert reason in lines[0]
  assert (tmp_path / "done").exists()


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "2>&- <&-"])
def test_a_stderr_that_takes_nothing_changes_nothing(tmp_path, streams):
  process = shell(tmp_path, streams)
  assert (process.returncode, json.loads(process.stdout)) == (0, RESULT)
  assert process.stderr == ""
  failing = MAIN.replace("return", "raise command.InputError('x')\n  return")
  assert shell(tmp_path, streams, failing).returncode == 2


def test_nothing_is_said_into_a_file_that_gets_the_number_of_a_closed_stream(tmp_path):
  script = MAIN.replace(
    "open('done', 'w').close()", "f = open('done', 'w'); import os; os.write(1, b'x'); f.close()"
  )
  assert shell(tmp_path, ">&- 2>&-", script).returncode == 1
  assert (tmp_path / "done").read_text() == ""


@pytest.mark.parametrize("streams", [">/dev/full", "| (exec <&-; sleep 0.5)"])
@pytest.mark.parametrize("arguments", ["--help", "train --help"])
def test_a_help_that_stdout_cannot_take_is_one_line(tmp_path, streams, arguments):
  script = "from asvit_jax import commands\ncommands.main()\n"
  process = shell(tmp_path, f"{arguments} {streams}", script)
  assert process.returncode in (1, 2)
  assert len(process.stderr.splitlines()) == 1 and process.stderr.startswith("error: ")


def test_a_help_is_printed_in_ascii_where_there_is_no_more(tmp_path):
  script = "from asvit_jax import commands\ncommands.main()\n"
  (tmp_path / "script.py").write_text(script)
  environment = processes.environment(PYTHONIOENCODING="ascii", LC_ALL="C", COLUMNS="0", TERM="")
  for arguments in (("--help",), ("evaluate", "--help")):
    process = subprocess.run(
      processes.command("script.py", *arguments), cwd=tmp_path, env=environment, capture_output=True
    )
    assert process.stderr == b""
    assert b"config" in process.stdout


@pytest.mark.parametrize(
  ("error", "said"),
  [
    (InputError("x is not y"), "x is not y"),
    (PermissionError(errno.EACCES, "Permission denied", "/d"), "/d cannot be .* permissions"),
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left .* make room"),
    (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "f"), r"f cannot be .* \(ulimit -n"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "f"), "give a shorter name"),
    (OSError(errno.ELOOP, "Too many levels", "f"), "links lead in a circle"),
    (ConnectionResetError(), "ConnectionResetError"),
    (MemoryError(), "not have enough memory: lower batch_size"),
  ],
)
def test_what_a_machine_refuses_is_said(error, said):
  found = failures.describe(error)
  assert re.search(said, found) and "\n" not in found


@pytest.mark.parametrize(
  "error", [ValueError("x"), KeyError("x"), RecursionError(), AssertionError(), RuntimeError("x")]
)
def test_mistakes_in_the_code_keep_their_traceback(error):
  assert failures.describe(error) is None


def test_flags_of_xla_that_would_end_the_process_are_refused(monkeypatch, tmp_path):
  monkeypatch.setenv("XLA_FLAGS", "bogus")
  with pytest.raises(InputError, match="XLA_FLAGS='bogus' is neither flags"):
    platforms.check_flags()
  (tmp_path / "flags").write_text("")
  for value in ("", " ", "--xla_cpu_use_fusion_emitters=false", str(tmp_path / "flags")):
    monkeypatch.setenv("XLA_FLAGS", value)
    platforms.check_flags()
