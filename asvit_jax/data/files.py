"""Image files and directories of them, as they lie on a disk: what counts as one, and what is left.

Names that begin with a dot, and those that systems and tools make by themselves, are nobody's
classes. Everything else that is not read is counted, so that it can be said.
"""

import collections
import dataclasses
import os
import re

from asvit_jax.core.errors import InputError

# Of image files, in lower case: what PIL reads, but for documents, icons and measurements.
SUFFIXES = (
  *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".gif"),
  *(".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"),
  *(".tga", ".pcx", ".qoi"),
)
_SUFFIXES = frozenset(SUFFIXES)
# Directories that macOS, Windows, Linux, Python, and NAS systems make, in lower case.
_SYSTEM = {
  *("lost+found", "__macosx", "__pycache__", "@eadir", "@recycle", "#recycle", "#snapshot"),
  *("~snapshot", "$recycle.bin", "system volume information"),
}


@dataclasses.dataclass
class Found:
  """What is in a directory and in all below it.

  Attributes:
    names: of image files, relative to the directory, sorted.
    times: {relative name of a directory: its time of change, ns}, "" for the directory itself.
    left: {suffix: number of files}, of what is not read; a hidden image counts as "hidden .jpg",
      and a directory that is not looked into by its name and a slash.
  """

  names: list[str]
  times: dict[str, int]
  left: collections.Counter


def scan(directory):
  """The image files in a directory and in all below it, links followed, as `Found`.

  Raises:
    InputError: a directory cannot be read.
  """
  found = Found([], {}, collections.Counter())
  _scan(os.fspath(directory), "", found, ())
  found.names.sort()
  return found


def _scan(directory, prefix, found, above):
  status = _stat(directory)
  place = status.st_dev, status.st_ino
  if place in above:  # a link back to where it came from
    return
  found.times[prefix.rstrip("/")] = status.st_mtime_ns
  for entry in entries(directory):
    name = entry.name
    if name[name.rfind(".") :].lower() in _SUFFIXES:  # asks nothing of the disk
      if name.startswith("."):
        found.left[f"hidden {suffix_of(name)}"] += 1
      else:
        found.names.append(prefix + name)
    elif not entry.is_dir():
      if not name.startswith("."):
        found.left[suffix_of(name)] += 1
    elif is_system(name):
      found.left[name + "/"] += 1
    else:
      _scan(entry.path, f"{prefix}{name}/", found, (*above, place))


def _stat(path):
  try:
    return os.stat(path)
  except OSError as error:
    raise unlisted(path, error) from error


def entries(directory):
  """What `os.scandir` gives, as a list; raises InputError for a directory that cannot be read."""
  try:
    with os.scandir(directory) as found:
      return list(found)
  except OSError as error:
    raise unlisted(directory, error) from error


def unlisted(directory, error):
  """The InputError for a directory that cannot be read."""
  return InputError(
    f"{directory} cannot be listed ({error.strerror}): check its permissions and its disk"
  )


def is_directory(path):
  """Whether it is one; raises InputError where that cannot be known, for lack of permissions."""
  try:
    os.stat(path)
  except (FileNotFoundError, NotADirectoryError):
    return False
  except OSError as error:
    raise unlisted(path, error) from error
  return os.path.isdir(path)


def is_system(name):
  """Whether a directory of that name is hidden, or made by a system or a tool."""
  return name.startswith(".") or name.lower() in _SYSTEM


def subdirectories(root):
  """Names of the directories in a directory, but for those of `is_system`, sorted.

  Raises:
    InputError: it cannot be read.
  """
  return sorted(e.name for e in entries(root) if e.is_dir() and not is_system(e.name))


def is_image(name):
  """Whether a file of that name is taken for an image."""
  return name[name.rfind(".") :].lower() in _SUFFIXES and not name.startswith(".")


def described(left):
  """A count of what is left out, in words: "3 .heic, 1 .txt"; the most first."""
  most = sorted(left.items(), key=lambda item: (-item[1], item[0]))
  more = f" and {sum(n for _, n in most[8:])} others" if len(most) > 8 else ""
  return ", ".join(f"{count} {suffix}" for suffix, count in most[:8]) + more


def suffix_of(name):
  """What files of such a name are counted as, where they are not read."""
  dot = name.rfind(".")
  if dot < 1:
    return name.lower() if name[:1] == "." else "without a suffix"
  suffix = name[dot:].lower()
  return suffix if re.fullmatch(r"\.[a-z][\w+~-]{0,9}", suffix) else "of other suffixes"
