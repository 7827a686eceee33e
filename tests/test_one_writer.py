"""Files get other names, are removed and are opened to write in one place of the package."""

import ast

import pytest

# What renames or removes, in the modules that have it and as methods of paths.
MODULES = {"os", "shutil"}
NAMES = {
  *("rename", "renames", "replace", "remove", "unlink", "rmdir", "removedirs", "rmtree", "move"),
  *("link", "symlink", "truncate", "ftruncate", "mkfifo", "mknod", "chmod", "chown", "open"),
}
METHODS = {
  *("rename", "unlink", "rmdir", "rmtree", "removedirs", "symlink_to", "hardlink_to", "touch"),
  *("rm", "rm_file", "mv", "chmod"),
}
WRITES = {"write_text", "write_bytes"}
STORAGE = {"core/disks.py", "core/places.py", "core/storage.py", "core/buckets.py"}
# What writes into a path of `storage.replacing`, or into a temporary directory of its own.
GIVEN = {
  "evaluation/features.py",
  "export/writing.py",
  "export/formats/tflite.py",
  "export/hub.py",
  "run/tensorboard.py",
  "core/recipes.py",
  "core/streams.py",  # the null device
}
# The lock is a file that stays open: its descriptor is of `storage.opened`. The link to a directory
# of checkpoints is in a temporary directory of its own.
ALLOWED = {"run/lock.py": {"os.open", "os.truncate"}, "run/plain_path.py": {"os.symlink"}}


def calls(tree):
  """What a file calls that renames, removes or writes: (the call, which of them)."""
  for node in ast.walk(tree):
    if not isinstance(node, ast.Call):
      continue
    function = node.func
    constants = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if _constant(a)]
    modes = [c for c in constants if isinstance(c, str) and c and set(c) <= set("rwxab+t")]
    writing = any(set(mode) & set("wxa+") for mode in modes)
    if isinstance(function, ast.Name) and function.id == "open" and writing:
      yield "open", "write"
    if not isinstance(function, ast.Attribute):
      continue
    name, owner = function.attr, ast.unparse(function.value)
    if (owner, name) == ("os", "open") and ast.unparse(node.args[0]) == "os.devnull":
      continue
    if owner in MODULES and name in NAMES:
      yield f"{owner}.{name}", "rename"
    elif owner not in ("storage", "disks") and name in METHODS:
      yield f"….{name}", "rename"
    # `Path.replace` takes one argument; a text's takes two, and dataclasses' has names.
    elif name == "replace" and len(node.args) == 1 and not node.keywords:
      yield "….replace", "rename"
    elif name in WRITES or (name == "open" and writing):
      yield f"….{name}", "write"


def _constant(node):
  return isinstance(node, ast.Constant)


@pytest.fixture(scope="module")
def found(repository):
  """{file of the package: {(call, kind)}}."""
  package = repository / "asvit_jax"
  return {
    str(path.relative_to(package)): set(calls(ast.parse(path.read_text())))
    for path in package.rglob("*.py")
  }


def test_only_storage_renames_and_removes(found):
  elsewhere = {
    (file, call)
    for file, every in found.items()
    for call, kind in every
    if kind == "rename" and file not in STORAGE and call not in ALLOWED.get(file, ())
  }
  assert elsewhere == set()
  assert {call for call, _ in found["core/disks.py"]} >= {"os.replace", "shutil.rmtree", "os.rmdir"}


def test_only_what_has_a_path_of_storage_opens_files_to_write(found):
  writers = {file for file, every in found.items() if "write" in {kind for _, kind in every}}
  assert writers - STORAGE == GIVEN


def test_disks_are_written_through_storage_alone(repository):
  importers = {
    path.name
    for path in (repository / "asvit_jax").rglob("*.py")
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.ImportFrom) and "disks" in {alias.name for alias in node.names}
  }
  assert importers == {"storage.py"}
