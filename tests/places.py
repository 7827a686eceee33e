"""What may be at a path that somebody gives to write to, and what is there afterwards."""

import os
import socket
import stat

MINE = "the user's own"


def _with_content(place):
  place.mkdir()
  (place / "mine").write_text(MINE)


def _link(target):
  def make(place):
    (place.parent / "elsewhere").mkdir()
    (place.parent / "elsewhere" / "mine").write_text(MINE)
    place.symlink_to(place.parent / target)

  return make


def _device(place):
  try:
    os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # /dev/null's; of our own
  except PermissionError:
    place.symlink_to("/dev/null")


def _socket(place):
  with socket.socket(socket.AF_UNIX) as server:
    here = os.open(place.parent, os.O_RDONLY)
    try:
      server.bind(f"/proc/self/fd/{here}/{place.name}")  # a socket's path has 108 bytes
    finally:
      os.close(here)


def _owners_of_names(place):
  """Names that this and other programs give to what is not whole yet."""
  for end in (".partial", ".before", ".tmp", "~", ".bak"):
    (place.parent / f"{place.name}{end}").mkdir()
    (place.parent / f"{place.name}{end}" / "mine").write_text(MINE)


def _read_only_directory(place):
  place.parent.chmod(0o500)


def _read_only_file(place):
  place.write_text(MINE)
  place.chmod(0o400)


def _secret_file(place):
  place.write_text(MINE)
  place.chmod(0o600)


# {what is there: function of a path that makes it}; a file can be written to the last ones.
REFUSED = {
  "directory": _with_content,
  "empty directory": lambda place: place.mkdir(),
  "link to a file": _link("elsewhere/mine"),
  "link to a directory": _link("elsewhere"),
  "dangling link": _link("nowhere"),
  "link to itself": lambda place: place.symlink_to(place.name),
  "link to a device": lambda place: place.symlink_to("/dev/null"),
  "link to stdout": lambda place: place.symlink_to("/dev/stdout"),
  "device": _device,
  "pipe": os.mkfifo,
  "socket": _socket,
}
WRITTEN = {
  "nothing": lambda place: None,
  "file": lambda place: place.write_text(MINE),
  "secret file": _secret_file,
  "file of two names": lambda place: (
    place.write_text(MINE),
    os.link(place, place.parent / "other name"),
  ),
  "files of names like those": _owners_of_names,
}
# Only root may write there all the same.
PERMISSIONS = {
  "directory without permission": _read_only_directory,
  "file without permission": _read_only_file,
}
# Texts that name nothing that could be written, in a directory that has `file` and `link`.
NAMES = {
  "empty": "",
  "here": ".",
  "above": "..",
  "slash": "{root}/new/",
  "dot": "{root}/new/.",
  "dots": "{root}/new/..",
  "root": "/",
  "below a file": "{root}/file/new",
  "far below a file": "{root}/file/a/b/new",
  "below a dangling link": "{root}/link/new",
  "of 256 characters": "{root}/" + 256 * "x",
  "of 256 bytes": "{root}/" + 128 * "ä" + "x",
  "below a name too long": "{root}/new/" + 300 * "x" + "/new",
  "of 5000 characters": "{root}" + 25 * ("/" + 200 * "x"),
  "in /proc": "/proc/new",
  "null": "{root}/a\0b",
}
# And such that do.
GOOD_NAMES = {
  "missing parents": "{root}/a/b/c",
  "of 255 characters": "{root}/" + 255 * "x",
  "of 250 bytes": "{root}/" + 125 * "ä",
  "newline": "{root}/a\nb",
  "escape": "{root}/\x1b]0;title\x07",
  "no UTF-8": "{root}/\udcff",
  "spaces": "{root}/ a  b ",
  "option": "{root}/-rf",
  "brackets": "{root}/a[1]*?",
  "percent": "{root}/%s%d{{}}",
}


def fill(root):
  """What `NAMES` need in a directory."""
  (root / "file").write_text(MINE)
  (root / "link").symlink_to(root / "nowhere")


def snapshot(root):
  """{relative path: type, permissions and content} of all that is below a directory."""
  found = {}
  for directory, directories, files in os.walk(root):
    for name in (*directories, *files):
      path = os.path.join(directory, name)
      mode = os.lstat(path).st_mode
      content = None
      if stat.S_ISLNK(mode):
        content = os.readlink(path)
      elif stat.S_ISREG(mode):
        with open(path, "rb") as file:
          content = file.read()
      found[os.path.relpath(path, root)] = (mode, content)
  return found


def assert_written_or_refused(root, path, write, error, before=None):
  """Calls a function, which writes a file to a path and changes no other, or raises an error.

  Args:
    root: directory that all is in.
    path: text.
    write: function of no arguments.
    error: type that it may raise.
    before: `snapshot` of before, by default of now.

  Returns:
    The error, or None where the file is written.
  """
  before = snapshot(root) if before is None else before
  try:
    write()
  except error as refused:
    assert "\n" not in str(refused) or "\n" in str(path)
    assert snapshot(root) == before, refused
    return refused
  after = snapshot(root)
  name = os.path.relpath(path, root)
  mode, content = after.pop(name)
  assert stat.S_ISREG(mode)
  assert content and content != MINE.encode()
  if name in before:
    assert stat.S_ISREG(before[name][0])
    assert mode == before.pop(name)[0]
  parents = {os.path.relpath(p, root) for p in _parents(path)}
  assert {k: v for k, v in after.items() if k in before or k not in parents} == before
  return None


def _parents(path):
  while (path := os.path.dirname(path)) not in ("", "/"):
    yield path
