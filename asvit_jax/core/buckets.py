"""Object stores, `gs://` and `s3://`, opened by etils.epath through gcsfs and s3fs.

An object appears as a whole or not at all; objects cannot be appended to, and there are no locks.
Only `storage` uses this module: the rest of the package does not distinguish paths.
"""

import contextlib
import functools
import importlib.util
import pathlib
import tempfile

from asvit_jax.core.errors import InputError
from asvit_jax.core.places import Refused

_LIBRARIES = {"gs": "gcsfs", "s3": "s3fs"}
INSTALL = "`pip install '.[storage]'` in the clone"


def path(url):
  """The `epath.Path` of a URL.

  Raises:
    InputError: the kind of store is not supported, its library is missing, or it cannot be reached.
  """
  scheme, _, rest = url.partition("://")
  if scheme not in _LIBRARIES:
    raise InputError(
      f"{url}: {scheme}:// is not supported: expected a path on a disk, where other stores can be "
      f"mounted, or one in a bucket, {' or '.join(f'{name}://' for name in _LIBRARIES)}"
    )
  bucket = rest.partition("/")[0]
  if not bucket:
    raise InputError(f"{url} names no bucket: expected {scheme}://BUCKET/…")
  _connect(scheme, bucket)
  from etils import epath

  return epath.Path(url)


@contextlib.contextmanager
def plain_errors(where):
  """Turns the errors of the stores' libraries, which have no common type, into OSErrors."""
  try:
    yield
  except (OSError, InputError):
    raise
  except Exception as error:
    raise OSError(f"{where}: {type(error).__name__}: {str(error)[:300]}") from error


@contextlib.contextmanager
def replacing(path, earlier=None):
  """Yields a temporary local path to write to, then uploads it; see `storage.replacing`."""
  with tempfile.TemporaryDirectory() as directory:
    partial = pathlib.Path(directory) / path.name
    check_known(path, earlier)
    yield partial
    check_known(path, earlier)
    upload(partial, path)


def check_known(path, earlier=None):
  """Raises OSError, or the error of `earlier`, if the content of a path must not be replaced."""
  with plain_errors(path):
    if not path.is_dir():
      return
    if earlier is None:
      raise Refused("it is a directory: give the name of a file")
    earlier(path)


def upload(local, target):
  """Copies a local file or directory to a path in a store.

  A file appears at once. A directory appears file by file; old files that it does not contain are
  removed last.
  """
  with plain_errors(target):
    if not local.is_dir():
      _filesystem(target).put_file(str(local), str(target))
      return
    before = set(_files(target))
    for file in sorted(file for file in local.rglob("*") if file.is_file()):
      name = str(target / file.relative_to(local).as_posix())
      _filesystem(target).put_file(str(file), name)
      before.discard(name)
    for name in sorted(before):
      _filesystem(target).rm_file(name)


def download(source, local):
  """Copies a file or directory from a store to a local path; raises OSError."""
  with plain_errors(source):
    if not source.is_dir():
      _filesystem(source).get_file(str(source), str(local))
      return
    for name in _files(source):
      relative = name.removeprefix(f"{source}/")
      if ".." in relative.split("/") or relative.startswith("/"):
        raise OSError(f"{name} would be written outside the copy")
      file = local / relative
      file.parent.mkdir(parents=True, exist_ok=True)
      _filesystem(source).get_file(name, str(file))


def move(source, target):
  """Moves a directory of a store to another path in the same store, file by file."""
  with plain_errors(source):
    for name in _files(source):
      _filesystem(source).mv(name, str(target) + name.removeprefix(str(source)))


def files_in(directory):
  """Names of all objects below a directory of a store, relative to it and sorted."""
  with plain_errors(directory):
    return sorted(name.removeprefix(f"{directory}/") for name in _files(directory))


def _files(directory):
  """URLs of all objects below a directory."""
  scheme = str(directory).partition("://")[0]
  return [f"{scheme}://{name}" for name in _filesystem(directory).find(str(directory))]


def _filesystem(path):
  import fsspec

  return fsspec.filesystem(str(path).partition("://")[0])


@functools.cache
def _connect(scheme, bucket):
  library = _LIBRARIES[scheme]
  if importlib.util.find_spec(library) is None:
    raise InputError(
      f"{scheme}://{bucket} needs {library}, which is not installed: {INSTALL} (or {library} alone)"
    )
  import fsspec

  # A cached listing would miss files that other processes have written or removed since.
  for protocol in ("gs", "gcs", "s3"):
    fsspec.config.conf.setdefault(protocol, {})["use_listings_cache"] = False
  try:
    fsspec.filesystem(scheme).info(f"{scheme}://{bucket}/asvit_jax/is it there")
  except FileNotFoundError:
    pass
  except Exception as error:  # credentials and networks raise errors of no common type
    raise InputError(
      f"{scheme}://{bucket} cannot be reached ({type(error).__name__}: {str(error)[:200]}): check "
      "the network and the credentials"
    ) from error
