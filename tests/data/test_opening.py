"""Image files of strangers: what they are inside, what they promise, and what is no file at all."""

import io
import os
import signal
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import processes
import pytest
from image_sets import encode, make_config, open_source, smooth_image
from PIL import EpsImagePlugin, Image

from asvit_jax.core.errors import InputError
from asvit_jax.data import files, images, opening, sources, transforms
from asvit_jax.data.preprocessing import Preprocessing

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(hi) print\n"


@pytest.fixture(autouse=True)
def in_time():
  """What reads without end fails, and does not hang."""

  def late(*_):
    raise TimeoutError

  before = signal.signal(signal.SIGALRM, late)
  signal.alarm(30)
  yield
  signal.alarm(0)
  signal.signal(signal.SIGALRM, before)


def chunk(kind, content):
  """A part of a PNG file."""
  checksum = struct.pack(">I", zlib.crc32(kind + content))
  return struct.pack(">I", len(content)) + kind + content + checksum


def png(*chunks, size=(4, 4)):
  """A PNG with further parts after its header, which says that it has this size."""
  whole = encode(Image.new("L", (4, 4)))
  header = struct.pack(">II", *size) + whole[24:29]
  return whole[:8] + chunk(b"IHDR", header) + b"".join(chunks) + whole[33:]


def webp(width, height):
  """A WebP of one colour: 34 bytes, of any size."""
  whole = bytearray(encode(Image.new("RGB", (1, 1), (1, 2, 3)), "WEBP", lossless=True))
  bits = int.from_bytes(whole[21:25], "little") & ~((1 << 28) - 1)
  whole[21:25] = (bits | (width - 1) | (height - 1) << 14).to_bytes(4, "little")
  return bytes(whole)


def refuse(path, match):
  """Every way to an image file refuses it in one line."""
  ways = (
    lambda: images.check_files([path]),
    lambda: images.load_image(path, 8, Preprocessing()),
    lambda: images.ImageFiles([path], ["a"])[0],
  )
  for way in ways:
    with pytest.raises(InputError, match=match) as error:
      way()
    assert "\n" not in str(error.value)


def test_a_document_named_as_an_image_starts_no_program(tmp_path, monkeypatch):
  started = []
  monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **_: started.append(a))
  file = tmp_path / "x.png"
  file.write_bytes(EPS)
  for way in (
    lambda: transforms.decode(EPS, "x.png"),
    lambda: images.load_image(file, 8, Preprocessing()),
    lambda: images.check_files([file]),
  ):
    with pytest.raises(InputError, match="no known image format"):
      way()
  assert not started


def test_the_formats_that_are_read_are_those_of_the_suffixes():
  Image.init()
  for kind, suffixes in files.FORMATS.items():
    assert kind in Image.OPEN or kind == "AVIF"
    for suffix in set(suffixes) - {".mpo"}:
      assert Image.EXTENSION.get(suffix, kind) in (kind, "BMP", "JPEG2000")
  for kind in set(Image.SAVE) & set(Image.OPEN) - set(files.FORMATS) - {"MPO", "PDF"}:
    file = io.BytesIO()
    try:
      Image.new("L", (16, 16)).save(file, kind)
    except Exception:
      continue
    if kind == "PALM":
      continue
    with pytest.raises(InputError, match="no known image format"):
      transforms.decode(file.getvalue(), kind)


def test_every_format_opens_under_any_name():
  for kind in set(files.FORMATS) & set(Image.SAVE):
    if kind == "AVIF" and kind not in Image.OPEN:
      continue
    assert transforms.decode(encode(Image.new("RGB", (16, 16)), kind), "x.png").size == (16, 16)


@pytest.mark.parametrize(
  ("content", "match"),
  [
    (lambda: webp(16383, 10900), "16383×10900 pixels, and WEBP is read up to 67,108,864"),
    (lambda: webp(8200, 8200), "8200×8200 pixels, and WEBP is read up to 67,108,864"),
    (lambda: webp(16383, 16383), "too large"),
    (lambda: png(size=(10400, 10400)), "PNG is read up to 107,374,182"),
    (lambda: png(size=(2**31 - 1, 2**31 - 1)), "too large"),
  ],
)
def test_an_image_is_refused_by_what_its_header_promises(content, match, tmp_path):
  content = content()
  assert len(content) < 200
  (tmp_path / "x.png").write_bytes(content)
  with pytest.raises(InputError, match=match):
    transforms.decode(content, "x")
  with pytest.raises(InputError, match=r"too large \(.*: make it smaller"):
    images.check_files([tmp_path / "x.png"])


def test_an_image_as_large_as_cameras_make_is_read_without_a_warning(tmp_path, repository):
  """In a process of its own: pytest forgets which warnings are not shown."""
  (tmp_path / "x.webp").write_bytes(webp(9000, 7000))
  (tmp_path / "y.png").write_bytes(png(size=(9500, 10000)))  # which lacks the pixels
  code = (
    "import sys; from asvit_jax.data import images, transforms\n"
    "images.check_files(sys.argv[1:])\n"
    "a, b = (open(path, 'rb').read() for path in sys.argv[1:])\n"
    "assert transforms.decode(a, 'x').size == (9000, 7000)\n"
    "try: transforms.decode(b, 'y')\n"
    "except ValueError as error: print(error)\n"
  )
  process = processes.run("-c", code, tmp_path / "x.webp", tmp_path / "y.png", cwd=repository)
  assert "y is not a readable image" in process.stdout
  assert "Warning" not in process.stderr


def test_threads_share_the_memory_that_decoding_takes(monkeypatch):
  running, most, lock = [0], [0], threading.Lock()
  shallow = transforms._shallow

  def slow(image, file):
    with lock:
      running[0] += 1
      most[0] = max(most[0], running[0])
    time.sleep(0.02)
    with lock:
      running[0] -= 1
    return shallow(image, file)

  monkeypatch.setattr(transforms, "_shallow", slow)
  content = png()
  size = 4 * 4 * 10
  for limit, expected in ((1, [1]), (size, [1]), (2 * size, [1, 2]), (9 * size, [2, 3, 4])):
    monkeypatch.setattr(opening, "_AT_ONCE", limit)
    most[0] = 0
    with ThreadPoolExecutor(4) as pool:
      list(pool.map(lambda _: transforms.decode(content, "x"), range(8)))
    assert most[0] in expected


TEXT = zlib.compress(b"a" * 2_000_000)
PARTS = {
  "a megabyte of packed text": chunk(b"zTXt", b"k\0\0" + TEXT),
  "many packed texts": chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 1_000_000)) * 70,
  "international text": chunk(b"iTXt", b"k\0\1\0\0\0" + TEXT),
  "a profile": chunk(b"iCCP", b"k\0\0" + TEXT),
  "no checksum": b"\0\0\0\5abcde",
}


@pytest.mark.parametrize("kind", PARTS)
def test_odd_parts_of_a_png_are_one_line(kind, tmp_path):
  """Either it is read, or it is refused, by both who look at its header and who decode it."""
  path = tmp_path / "x.png"
  path.write_bytes(png(PARTS[kind]))
  for way in (
    lambda: images.check_files([path]),
    lambda: images.load_image(path, 8, Preprocessing()),
  ):
    try:
      way()
    except InputError as error:
      assert "\n" not in str(error)


def make(path, kind):
  """What is no image file, at a path."""
  if kind == "itself":
    path.symlink_to(path)
  elif kind == "pipe":
    os.mkfifo(path)
  elif kind == "directory":
    path.mkdir()
  elif kind == "nothing":
    path.symlink_to(path.parent / "gone")
  elif kind == "cut":
    path.write_bytes(encode(smooth_image(np.random.default_rng(0)))[:-400])
  elif kind == "empty":
    path.write_bytes(b"")
  else:
    path.symlink_to(kind)


KINDS = ("itself", "pipe", "directory", "nothing", "empty", "/dev/zero", "/dev/null", "/dev/stdin")


@pytest.mark.parametrize("kind", [*KINDS, "cut"])
def test_what_is_no_image_file_is_one_line_in_every_place(kind, folder):
  path = folder / "train" / "a" / "new.jpg"
  make(path, kind)
  if kind not in ("empty", "cut", "/dev/stdin"):
    refuse(path, "new.jpg cannot be read")
  source = open_source(make_config(dir=folder))
  assert len(source) == 12
  with pytest.raises(InputError, match=r"1 of 12 checked images.*new\.jpg.*max_bad_images"):
    sources.check_images(source, 20)
  sources.check_images(source, 20, max_bad_images=1)


@pytest.mark.parametrize("name", ["zero\0byte.jpg", "x" * 300 + ".jpg", "/".join("y" * 3000)])
def test_names_that_no_file_has_are_one_line(name):
  refuse(name, "cannot be read")
