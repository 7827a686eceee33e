"""What a file of weights is by its first bytes, whatever its name says."""

from asvit_jax.core.errors import InputError

_POINTER = b"version https://git-lfs"


def check_no_pointer(path, source):
  """Raises InputError for what Git leaves in the place of a large file that was not fetched.

  Args:
    path: of a file on a disk, a `pathlib.Path`.
    source: for the error.

  Raises:
    OSError: it cannot be read.
  """
  if _start(path, len(_POINTER)) == _POINTER:
    raise InputError(
      f"{source} is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository"
    )


def is_safetensors(path):
  """Whether a file on a disk begins with the length of a header, and a header of JSON."""
  start = _start(path, 9)
  length = int.from_bytes(start[:8], "little")
  return start[8:] == b"{" and length <= path.stat().st_size - 8


def _start(path, count):
  with path.open("rb") as file:
    return file.read(count)
