"""Image files in directories: which files count as images, and what was ignored.

Directories that start with a dot, and those that systems and tools create, are not classes. All
other files that are not read are counted, so that they can be reported.
"""

import collections
import dataclasses
import functools
import heapq
import os
import re
from pathlib import PurePath

from asvit_jax.core.errors import InputError

# Formats that are read, by PIL's names, with their suffixes in lower case. PIL's other formats are
# documents, for which it may start programs, icons and scientific data.
FORMATS = {
  "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
  "PNG": (".png", ".apng"),
  "WEBP": (".webp",),
  "AVIF": (".avif",),
  "GIF": (".gif",),
  "BMP": (".bmp",),
  "DIB": (".dib",),
  "TIFF": (".tif", ".tiff"),
  "JPEG2000": (".jp2", ".j2k", ".jpx"),
  "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
  "TGA": (".tga",),
  "PCX": (".pcx",),
  "QOI": (".qoi",),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
_SUFFIXES = frozenset(SUFFIXES)
_DEEPEST = 64  # levels of directories below a class's
# Directories that macOS, Windows, Linux, Python and NAS systems create, in lower case.
_SYSTEM = {
  *("lost+found", "__macosx", "__pycache__", "@eadir", "@recycle", "#recycle", "#snapshot"),
  *("~snapshot", "$recycle.bin", "system volume information"),
}


@dataclasses.dataclass
class Found:
  """The image files in a directory and below it.

  Attributes:
    names: paths of the image files relative to the directory, sorted.
    times: {relative path of a directory: its modification time, ns}; "" is the directory itself.
    left: {suffix: number of files} that are not read; a hidden image counts as "hidden .jpg", and a
      directory that is not entered by its name and a slash.
  """

  names: list[str]
  times: dict[str, int]
  left: collections.Counter


def scan(directory, root=None, pools=()):
  """Finds the image files in a directory and below it, each once, as `Found`.

  Links to directories are followed, also to other disks, after the directory's own files. A link to
  the images of another class, or to a directory above them, is ignored: its images would get a
  second class.

  Args:
    directory: directory of a class, or of images without classes.
    root: directory whose other subdirectories are the other classes; by default the parent. If it
      is `directory` itself, there are no other classes.
    pools: names of subdirectories of `root` that are not classes: links may lead there.

  Raises:
    InputError: a directory cannot be read.
  """
  return _Walk(directory, root, pools).found()


def status(path):
  """`os.stat` of a path; raises InputError if it fails."""
  try:
    return os.stat(path)
  except OSError as error:
    raise unlisted(path, error) from error


def entries(directory):
  """The result of `os.scandir`, as a list; raises InputError if the directory cannot be read."""
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
  """Whether a path is a directory; raises InputError if permissions prevent finding out."""
  try:
    os.stat(path)
  except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with a zero byte
    return False
  except OSError as error:
    raise unlisted(path, error) from error
  return os.path.isdir(path)


def leads_to_directory(entry):
  """Whether an entry of `os.scandir` is a directory, or a link to a reachable one."""
  try:
    return entry.is_dir()
  except PermissionError as error:
    raise unlisted(entry.path, error) from error
  except OSError:  # a link to itself, or to too long a name
    return False


def ways(path):
  """A path, as text, and all directories above it, lowest first."""
  return [path, *map(str, PurePath(path).parents)]


def is_system(name):
  """Whether a directory of that name is hidden, or created by a system or a tool."""
  return name.startswith(".") or name.lower() in _SYSTEM


def subdirectories(root):
  """Names of the subdirectories of a directory, without those of `is_system`, sorted.

  Raises:
    InputError: the directory cannot be read.
  """
  return sorted(e.name for e in entries(root) if not is_system(e.name) and leads_to_directory(e))


def has_suffix_of_images(name):
  """Whether a name ends with a suffix of images."""
  return name[name.rfind(".") :].lower() in _SUFFIXES


def is_image(name):
  """Whether a file of that name is treated as an image."""
  return has_suffix_of_images(name) and not name.startswith(".")


def described(left):
  """A count of ignored files in words, most frequent first: "3 .heic, 1 .txt"."""
  most = sorted(left.items(), key=lambda item: (-item[1], item[0]))
  more = f" and {sum(n for _, n in most[8:])} others" if len(most) > 8 else ""
  return ", ".join(f"{count} {suffix}" for suffix, count in most[:8]) + more


def suffix_of(name):
  """The category under which an ignored file of this name is counted."""
  dot = name.rfind(".")
  if dot < 1:
    return name.lower() if name[:1] == "." else "without a suffix"
  suffix = name[dot:].lower()
  return suffix if re.fullmatch(r"\.[a-z][\w+~-]{0,9}", suffix) else "of other suffixes"


LINK_OUT = "a link out of its class"  # a reason for ignoring a file


class _Walk:
  """The traversal behind `scan`.

  It is iterative, not recursive: directories may be nested, and links chained, to any depth.
  """

  def __init__(self, directory, root=None, pools=()):
    self._directory = os.fspath(directory)
    self._root = os.path.dirname(os.path.abspath(directory)) if root is None else os.fspath(root)
    self._top = os.path.realpath(directory)
    self._pools = pools
    self._found = Found([], {}, collections.Counter())
    self._seen = set()  # (device, inode) of directories
    self._another = {}  # {target directory of links: whether it belongs to another class}
    self._inner = [(self._directory, "", self._top, False)]
    self._links = []  # a heap: the order of visits must not depend on the disk

  def found(self):
    """Runs the traversal; raises InputError for a directory that cannot be read."""
    while self._inner or self._links:
      if not self._inner:
        prefix, directory = heapq.heappop(self._links)
        real = os.path.realpath(directory)
        if self._counts_elsewhere(real):
          self._leave(prefix, LINK_OUT)
          continue
        self._inner.append((directory, prefix, real, True))
      self._visit(*self._inner.pop())
    self._found.names.sort()
    return self._found

  def _visit(self, directory, prefix, real, linked):
    """Processes a directory with a real path; `linked` says that a link led to it."""
    now = status(directory)
    place = now.st_dev, now.st_ino
    if place in self._seen:
      return
    if linked and real in self._others:
      self._leave(prefix, "another class")
      return
    if prefix.count("/") > _DEEPEST:
      self._leave(prefix, f"more than {_DEEPEST} directories deep")
      return
    self._seen.add(place)
    self._found.times[prefix.rstrip("/")] = now.st_mtime_ns
    for entry in entries(directory):
      self._take(entry, prefix, real, linked)

  def _take(self, entry, prefix, real, linked):
    name, link = entry.name, entry.is_symlink()
    if has_suffix_of_images(name):  # needs no access to the disk
      if name.startswith("."):
        self._found.left[f"hidden {suffix_of(name)}"] += 1
      elif link and self._is_of_another(entry.path, real):
        self._found.left[f"{suffix_of(name)} ({LINK_OUT})"] += 1
      else:
        self._found.names.append(prefix + name)
    elif not leads_to_directory(entry):
      if not name.startswith("."):
        self._found.left[suffix_of(name)] += 1
    elif is_system(name):
      self._found.left[name + "/"] += 1
    elif link:
      heapq.heappush(self._links, (f"{prefix}{name}/", entry.path))
    else:
      self._inner.append((entry.path, f"{prefix}{name}/", os.path.join(real, name), linked))

  def _leave(self, prefix, why):
    self._found.left[f"{prefix.rstrip('/').rpartition('/')[2]}/ ({why})"] += 1

  def _counts_elsewhere(self, real):
    """Whether a link leads to another class's directory, or to one above this or all classes."""
    if _is_in(real, self._top):  # its files are found anyway
      return False
    above = _is_in(self._top, real) or _is_in(os.path.realpath(self._root), real)
    return above or not self._others.isdisjoint(ways(real))

  def _is_of_another(self, path, real):
    """Whether a link to a file, in a directory with a real path, leads to another class."""
    try:
      target = os.path.join(real, os.readlink(path))
    except OSError:  # deleted meanwhile: reading the file will report it
      return False
    directory = os.path.dirname(target)
    if directory not in self._another:  # many links lead to the same directory
      above = ways(os.path.realpath(directory))
      self._another[directory] = not self._others.isdisjoint(above)
    return self._another[directory]

  @functools.cached_property
  def _others(self):
    """Real paths of the other classes' directories."""
    if os.path.realpath(self._root) == self._top:
      return frozenset()
    pools = {os.path.realpath(os.path.join(self._root, name)) for name in self._pools}
    others = _real_subdirectories(self._root, status(self._root).st_mtime_ns)
    return others - pools - {self._top}


@functools.lru_cache(8)
def _real_subdirectories(root, changed):
  """Real paths of subdirectories, cached while the directory's modification time is `changed`."""
  del changed
  return frozenset(os.path.realpath(os.path.join(root, name)) for name in subdirectories(root))


def _is_in(path, directory):
  """Whether a real path is a directory or below it."""
  return path == directory or path.startswith(directory.rstrip("/") + "/")
