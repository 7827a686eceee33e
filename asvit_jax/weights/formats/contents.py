"""Detects the format of a file of weights from its first bytes, regardless of its name."""

from asvit_jax.core.errors import InputError

_POINTER = b"version https://git-lfs"


def check_no_pointer(path, source):
  """Raises InputError for a Git LFS pointer, which stands for a large file not yet fetched.

  Args:
    path: `pathlib.Path` of a file on a disk.
    source: name of the source, for the error.

  Raises:
    OSError: the file cannot be read.
  """
  if _start(path, len(_POINTER)) == _POINTER:
    raise InputError(
      f"{source} is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository"
    )


def is_safetensors(path):
  """Whether a file on a disk starts like safetensors: the length of a header, then JSON."""
  start = _start(path, 9)
  length = int.from_bytes(start[:8], "little")
  return start[8:] == b"{" and length <= path.stat().st_size - 8


def _start(path, count):
  with path.open("rb") as file:
    return file.read(count)
