"""Fixtures. Tests run on the CPU, whose float32 arithmetic their tolerances are about."""

import mmap
import os
import signal
import tempfile
from pathlib import Path

import jaxlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  # A shell starts jobs of its background so, and processes hand it on: tests interrupt some.
  signal.signal(signal.SIGINT, signal.default_int_handler)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  # Shared by the workers of xdist and by subprocesses: what one compiled, none compiles again.
  _cache = tempfile.TemporaryDirectory(prefix="asvit_jax_tests_")
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

# Programs here run for milliseconds and compile for seconds. What must hold for the programs that
# users run is marked `optimized`, and runs again by itself: XLA's flags are those of a process.
_FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def _known(flag):
  """Whether this version of XLA has a flag: one that it does not know ends the process."""
  for library in Path(jaxlib.__file__).parent.glob("libjax_common.*"):
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code:
      return code.find(flag.encode()) >= 0
  return False


if _known("xla_cpu_use_fusion_emitters"):  # without them a program compiles in half the time
  _FAST += " --xla_cpu_use_fusion_emitters=false"
if _known("xla_cpu_parallel_codegen_split_count"):  # the workers have no cores to spare for parts
  _FAST += " --xla_cpu_parallel_codegen_split_count=1"
if not os.environ.get("OPTIMIZED") and _FAST not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FAST}"

import buckets  # noqa: E402
import pytest  # noqa: E402
import tiny  # noqa: E402
from absl import flags  # noqa: E402

from asvit_jax import vit  # noqa: E402
from asvit_jax.optimizers import building  # noqa: E402
from asvit_jax.sparsity.executions import grouped, packed  # noqa: E402


def pytest_collection_modifyitems(items):
  """Marks `external` the tests of formats that need a library beyond the extra `dev`."""
  from asvit_jax.export.formats import FORMATS

  needy = {name for name in FORMATS if FORMATS[name].needs}
  for item in items:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if {"torch", "object_store"} & set(item.fixturenames) or params.get("form") in needy:
      item.add_marker(pytest.mark.external)


REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def repository():
  """The root of the checkout."""
  return REPOSITORY


@pytest.fixture(scope="session", autouse=True)
def parsed_flags():
  flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags


@pytest.fixture(scope="session", autouse=True)
def adamw_is_tried_once():
  """Configs of hundreds of tests have the same optimizer; to try it takes longer than the rest."""
  check, tried = building.check, set()

  def check_once(options):
    key = options.name == "adamw" and repr(options)
    if not key or key not in tried:
      check(options)  # raises
      tried.add(key)

  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(building, "check", check_once)
    yield


@pytest.fixture(scope="session")
def shared():
  """The directory of reference files beside the repository."""
  directory = REPOSITORY.parent / "shared"
  if not directory.is_dir():
    pytest.skip(f"{directory} is not there; it is not part of the repository")
  return directory


@pytest.fixture(scope="module")
def short_ladders():
  """Few widths compile fast; test_packing tries more."""
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(packed, "STEP", 12)
    patched.setattr(grouped, "FEW", 0)
    yield


@pytest.fixture(scope="session")
def pruned():
  """(arch, params, images): a random network whose thresholds prune differently in each image."""
  arch = tiny.arch()
  images = tiny.images(arch, 6)
  return arch, tiny.with_thresholds(arch, tiny.params(arch), images, (0.7, 0.5, 0.3)), images


@pytest.fixture(scope="session")
def timm():
  """The library, of the extra `test-all`."""
  return pytest.importorskip("timm")


@pytest.fixture(scope="session")
def transformers():
  """The library, of the extra `test-all`."""
  return pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def object_store():
  """The address of a Google Cloud Storage of this machine; the environment leads to it."""
  with buckets.serving() as address:
    yield address


@pytest.fixture
def bucket(object_store):
  """A new bucket, gs://…."""
  return buckets.make(object_store)


@pytest.fixture(scope="module")
def tiny_variant():
  """The smallest network that trains, as model.variant "tiny"."""
  with pytest.MonkeyPatch.context() as patched:
    patched.setitem(vit.VARIANTS, "tiny", tiny.TRAINED)
    yield


@pytest.fixture
def folder(tmp_path):
  """A data set of 24 training and 10 validation images in three classes."""
  return tiny.write_folder(tmp_path / "images")
