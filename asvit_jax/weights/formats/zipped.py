"""Checks the member lists of zip archives, NumPy's and PyTorch's files, before they are read.

An archive of kilobytes can unpack to gigabytes, or list millions of members.
"""

import struct
import zipfile

from asvit_jax.core.errors import InputError
from asvit_jax.weights import checks

# The longest list of members at an archive's end; 65,536 members with long names take half of it.
_MOST_BYTES = 16 << 20
_END, _END64 = b"PK\x05\x06", b"PK\x06\x06"
_LONGEST_END = 22 + (1 << 16) + 20 + 56  # with the longest comment and the records for large files


def members(path, source):
  """The members of an archive.

  Args:
    path: `pathlib.Path` of a file on a disk.
    source: name of the source, for the error.

  Returns:
    List of `zipfile.ZipInfo`.

  Raises:
    InputError: it lists too many members, or would unpack to far more than its own size.
    zipfile.BadZipFile: the file is damaged, or not a zip archive.
    OSError: the file cannot be read.
  """
  if (listed := _bytes_of_list(path)) > _MOST_BYTES:
    raise InputError(
      f"{source} lists its members in {listed:,} bytes, expected at most {_MOST_BYTES:,}: it does "
      "not look like weights"
    )
  with zipfile.ZipFile(path) as archive:
    found = archive.infolist()
  if len({member.filename for member in found}) < len(found):
    raise InputError(f"{source} has a member twice: fetch it again")
  checks.check_unpacked(sum(member.file_size for member in found), path, source)
  return found


def _bytes_of_list(path):
  """The length of the list of members; the larger value if its two records differ."""
  with path.open("rb") as file:
    file.seek(-min(path.stat().st_size, _LONGEST_END), 2)
    tail = file.read()
  end = tail.rfind(_END)
  if end < 0 or end + 22 > len(tail):
    return 0  # not an archive: `zipfile` will report it
  (short,) = struct.unpack_from("<L", tail, end + 12)
  end64 = tail.rfind(_END64, 0, end)
  if end64 < 0:
    return short
  (long,) = struct.unpack_from("<Q", tail, end64 + 40)
  return long if short == 0xFFFFFFFF else max(short, long)
