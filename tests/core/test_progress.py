"""What is said where nobody can hear it: work goes on."""

import io
import sys

import pytest

from asvit_jax.core import progress


class Broken(io.StringIO):
  def __init__(self, error):
    super().__init__()
    self.error = error

  def write(self, text):
    raise self.error


def closed():
  stream = io.StringIO()
  stream.close()
  return stream


@pytest.mark.parametrize(
  "stream",
  [
    Broken(OSError(28, "No space left on device")),
    Broken(BrokenPipeError(32, "Broken pipe")),
    Broken(OSError(5, "Input/output error")),
    closed(),
    None,
  ],
  ids=["full", "reader gone", "terminal gone", "closed", "none"],
)
def test_what_cannot_be_said_ends_nothing(monkeypatch, capsys, stream):
  with monkeypatch.context() as patched:
    patched.setattr(sys, "stderr", stream)
    progress.log("a line")
    counted = progress.Progress("images", 2, every=0.0)
    counted.update(1)
    counted.update(2)
  assert capsys.readouterr().out == ""  # which has the result, and nothing else
