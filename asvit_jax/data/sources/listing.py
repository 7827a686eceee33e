"""Lists the image files of a data set: in parallel, compactly, and with a cache.

A list is one array of bytes with all names concatenated, and one of offsets: ImageNet's 1.28
million names take 36 MB in all. Both arrays are memory-mapped from the cache, so that all processes
of a machine share the memory.
"""

import concurrent.futures
import functools
import hashlib
import json
import os
import time
import zlib
from pathlib import Path

import numpy as np

from asvit_jax.core import schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import Progress, log
from asvit_jax.data import files

_COUNTS = schema.table(others=schema.integer(-(2**63), 2**63 - 1))
_DIRECTORIES = schema.array(
  {
    "type": "array",
    "prefixItems": [schema.text(), schema.integer(), _COUNTS, _COUNTS],
    "minItems": 4,
    "maxItems": 4,
  },
  most=2**31,
)
_THREADS = 32  # the threads mostly wait for a disk or a network
_MAGIC = b"asvit_jax list 2"  # format 1 had no subdirectories and no ignored files
# Part of the file's name: a list made by other rules is another file.
_RULES = "links to other classes are left out"
_HEADER = 32  # bytes: the magic, the checksum of the rest, the length of the JSON
_LEAST = 10_000  # files; fewer need no cache
_RECENT = 2 * 10**9  # ns; file systems' times may be coarse


class Listing:
  """Names of files, grouped by directory; both are sorted.

  Args:
    directories: [[name, number of files, times, ignored files], …], the last two as in
      `files.Found`; the times are empty if the directory changed while it was listed.
    ends: (files,) int64 end of each file's name in `names`.
    names: (bytes,) uint8.
    origin: (path, checksum) of the file from which the arrays are mapped; None if they are in
      memory.
  """

  def __init__(self, directories, ends, names, origin=None):
    self.directories = directories
    self._ends, self._names, self._origin = ends, names, origin
    self.firsts = np.cumsum([0, *(entry[1] for entry in directories)])

  @classmethod
  def of(cls, found, name=""):
    """The listing of one directory, a `files.Found`; `name` is the directory's name."""
    blob, lengths, times, left = _packed(found)
    directories = [[name, len(lengths), times, left]]
    return cls(directories, np.cumsum(lengths), np.frombuffer(blob, np.uint8))

  def __len__(self):
    return len(self._ends)

  def __getitem__(self, index):
    """The name of a file relative to its directory, as bytes."""
    return self.joined(index, index + 1)

  def joined(self, first, last):
    """The names of files `first` to `last`, concatenated, as bytes."""
    begin = self._ends[first - 1] if first else 0
    return self._names[begin : self._ends[last - 1]].tobytes() if last > first else b""

  def lengths(self, first, last):
    """The lengths in bytes of the names of files `first` to `last`."""
    begin = self._ends[first - 1 : first] if first else np.zeros(1, np.int64)
    return np.diff(np.concatenate([begin, self._ends[first:last]]))

  def __reduce__(self):
    if self._origin is None:
      return Listing, (self.directories, self._ends, self._names)
    return _mapped_again, self._origin


def list_files(root, cache="", pools=()):
  """Lists the image files in the subdirectories of a directory, and below them.

  Args:
    root: the directory, on a disk.
    cache: directory in which to cache the list; "" for no cache. Small lists are not cached.
      Directories whose modification time has changed are listed again. A cache that is damaged
      or cannot be written is ignored.
    pools: names of subdirectories to ignore, to which links may lead.

  Returns:
    A `Listing`.

  Raises:
    InputError: a directory cannot be read, or is a link to another one or to one above it.
  """
  path = _cache_path(root, cache, pools) if cache else None
  known = _mapped(path) if path else None
  names = [name for name in files.subdirectories(root) if name not in pools]
  _check_apart(root, names)
  before = _entries(known)
  scan = functools.partial(files.scan, pools=pools) if pools else files.scan
  now = time.time_ns()

  def entry(name):
    directory = os.path.join(root, name)
    if name in before and _unchanged(directory, before[name][0]):
      return None
    blob, lengths, times, left = _packed(scan(directory))
    # If a directory changed just now, its next change may leave the same time.
    recent = any(changed >= now - _RECENT for changed in times.values())
    return blob, lengths, {} if recent else times, left

  progress = Progress(f"listing {root}, directories", len(names))
  entries = []
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    for found in pool.map(entry, names):
      progress.update(len(entries))
      entries.append(found)
  if known is not None and len(before) == len(names) and not any(entries):
    return known
  listing = _merged(names, entries, known, before)
  if path is None or len(listing) < _LEAST:
    return listing
  return _kept(listing, path) or listing


def _check_apart(root, names):
  """Raises InputError if a directory is a link that would give an image two classes."""
  if not any(os.path.islink(os.path.join(root, name)) for name in names):
    return
  classes = {}
  for name in names:
    real = os.path.realpath(os.path.join(root, name))
    other = classes.setdefault(real, name)
    if other != name:
      raise InputError(f"{root}: {other} and {name} are the same directory: remove one of the two")
  whole = os.path.realpath(root)
  for real in files.ways(whole):
    if real in classes:
      raise InputError(
        f"{root}: {classes[real]} is a link to {real}, which holds all classes: link to a class's "
        "images"
      )
  for real, name in classes.items():
    above = next((classes[way] for way in files.ways(real)[1:] if way in classes), None)
    if above is not None:
      raise InputError(
        f"{root}: {name} is a link to a directory in {above}, which would give its images two "
        "classes: move them out of there"
      )


def _packed(found):
  """A `files.Found` as (concatenated names, their lengths, times, ignored files)."""
  names = [os.fsencode(name) for name in found.names]
  lengths = np.array([len(name) for name in names], np.int64)
  return b"".join(names), lengths, found.times, dict(found.left)


def _unchanged(directory, times):
  """Whether a directory and all below it, `Found.times`, have their earlier modification times."""
  try:
    return bool(times) and all(
      os.stat(os.path.join(directory, name)).st_mtime_ns == changed
      for name, changed in times.items()
    )
  except OSError:  # deleted or unreadable: listing it will report that
    return False


def _entries(listing):
  """{name of a directory: (its times, ignored files, first file, last file)}."""
  if listing is None:
    return {}
  firsts = listing.firsts.tolist()
  return {
    name: (times, left, firsts[i], firsts[i + 1])
    for i, (name, _, times, left) in enumerate(listing.directories)
  }


def _merged(names, entries, known, before):
  """A new `Listing`: new results where there are any, and the known entries elsewhere."""
  for i, found in enumerate(entries):
    if found is None:
      times, left, first, last = before[names[i]]
      entries[i] = known.joined(first, last), known.lengths(first, last), times, left
  directories = [
    [name, len(lengths), times, left]
    for name, (_, lengths, times, left) in zip(names, entries, strict=True)
  ]
  ends = np.cumsum(np.concatenate([np.zeros(0, np.int64), *(entry[1] for entry in entries)]))
  blob = b"".join(entry[0] for entry in entries)
  return Listing(directories, ends, np.frombuffer(blob, np.uint8))


def _cache_path(root, cache, pools):
  key = "\n".join([os.path.abspath(root), _RULES, *files.SUFFIXES, *pools])
  return storage.path(cache) / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:16]}.list"


def _kept(listing, path):
  """Writes a listing to the cache and returns it mapped from there; None if that fails."""
  text = json.dumps(listing.directories).encode()
  text += b" " * (-len(text) % 8)
  body = b"".join([text, listing._ends.tobytes(), listing._names.tobytes()])
  header = np.array([zlib.crc32(body), len(text)], np.uint64).tobytes()
  try:  # hosts and runs may share a cache: the last writer wins
    storage.write(path, _MAGIC + header + body)
  except OSError as error:
    log(f"WARNING: the list of files is not kept in {path.parent} ({error})")
    return None
  return _mapped(path)


def _mapped(path, verified=None):
  """The `Listing` in a cache file, or None if it is missing or damaged.

  Args:
    path: path of the file.
    verified: the checksum if another process has verified the content by it and by the schema;
      None to verify it here.
  """
  try:
    content = np.memmap(path, np.uint8, "r")
    magic, (checksum, length) = content[:16].tobytes(), content[16:_HEADER].view(np.uint64).tolist()
    if magic != _MAGIC:
      return None
    if checksum != (zlib.crc32(content[_HEADER:]) if verified is None else verified):
      return None
    begin = _HEADER + length
    text = content[_HEADER:begin].tobytes()
    if verified is None:
      directories = schema.loads(text, _DIRECTORIES, f"list {path}", most_bytes=len(text))
    else:
      directories = json.loads(text)
    count = sum(entry[1] for entry in directories)
    ends = content[begin : begin + 8 * count].view(np.int64)
    if len(ends) < count:
      return None
    return Listing(directories, ends, content[begin + 8 * count :], (str(path), checksum))
  except (OSError, ValueError, IndexError):  # missing, empty, truncated or of another form
    return None


def _mapped_again(path, checksum):
  """The `Listing` that another process has mapped and verified."""
  listing = _mapped(Path(path), checksum)
  if listing is None:
    raise InputError(
      f"the list of files {path} has changed since the run began: another run found other images; "
      "run the same command to go on, with a data.cache of its own"
    )
  return listing
