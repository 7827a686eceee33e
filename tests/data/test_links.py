"""Links in a folder of images: each image once, and of no class but its own."""

import os
import subprocess

import hanging
import pytest
from image_sets import encode, make_config, open_source
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.data import images, sources
from asvit_jax.data.files import scan

PNG = encode(Image.new("L", (2, 2)))


def write(directory, *names):
  directory.mkdir(parents=True, exist_ok=True)
  for name in names:
    (directory / name).write_bytes(PNG)
  return directory


@pytest.fixture
def root(tmp_path):
  """Two classes, of one and two images."""
  write(tmp_path / "train" / "a", "1.png")
  write(tmp_path / "train" / "b", "2.png", "3.png")
  return tmp_path / "train"


def opened(root, **data):
  """{name of an image: label}, each once, and what is said."""
  source = open_source(make_config(dir=root.parent, **data), root.name)
  examples = [source[i] for i in range(len(source))]
  names = [example["file"].rpartition("/")[2] for example in examples]
  assert len(set(names)) == len(names), names
  labels = [example["label"] for example in examples]
  return dict(zip(names, labels, strict=True)), " ".join(sources.notes(source))


BOTH = {"1.png": 0, "2.png": 1, "3.png": 1}
TARGETS = {
  "the split": "..",
  "the data set": "../..",
  "the whole disk": "/",
  "another class": "../b",
  "below another class": "../b/deep",
  "another class, by a detour": "{elsewhere}/detour",
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("cached", [False, True])
def test_a_link_gives_no_class_the_images_of_another(root, target, cached, tmp_path, monkeypatch):
  (root / "b" / "deep").mkdir()
  write(tmp_path / "elsewhere")
  (tmp_path / "elsewhere" / "detour").symlink_to(root / "b")
  (root / "a" / "up").symlink_to(TARGETS[target].format(elsewhere=tmp_path / "elsewhere"))
  if cached:
    monkeypatch.setattr("asvit_jax.data.sources.listing._LEAST", 1)
  for _ in range(2):
    found, said = opened(root, cache=tmp_path / "cache" if cached else "")
    assert found == BOTH
    assert f"left out of {root}: 1 up/ (a link out of its class)" in said


def test_a_class_of_linked_directories_has_no_images_of_its_siblings(tmp_path):
  """As `root`, but the classes are links to where all classes lie, and one has a link to that."""
  pool = tmp_path / "pool"
  write(pool / "a", "1.png")
  write(pool / "b", "2.png", "3.png")
  write(pool / "c", "4.png")  # which nobody asked for
  root = write(tmp_path / "train")
  (root / "a").symlink_to(pool / "a")
  (root / "b").symlink_to("../pool/b")
  assert opened(root)[0] == BOTH
  (pool / "a" / "up").symlink_to(pool)
  (pool / "a" / "side").symlink_to(pool / "b")
  found, said = opened(root)
  assert found == BOTH
  assert "1 side/ (a link out of its class), 1 up/ (a link out of its class)" in said
  (pool / "a" / "up").unlink()
  outer = write(tmp_path / "outer")
  (outer / "b").symlink_to(pool / "b")
  (outer / "c").symlink_to(pool / "c")
  (pool / "a" / "outer").symlink_to(outer)  # of which one leads to a class, and one does not
  assert opened(root)[0] == BOTH | {"4.png": 0}


def test_links_to_other_disks_are_followed_and_each_image_is_taken_once(root, tmp_path):
  disk = write(tmp_path / "disk", "4.png")
  write(disk / "deep", "5.png")
  (root / "a" / "one").symlink_to(disk)
  (root / "a" / "two").symlink_to(disk)
  (root / "a" / "zero").symlink_to(disk / "deep")
  (disk / "deep" / "back").symlink_to(disk)
  (root / "b" / "single.png").symlink_to(disk / "4.png")
  (root / "a" / "again").symlink_to(root / "a")
  (root / ".hidden").mkdir()
  write(root / ".hidden", "6.png")
  (root / "a" / "hidden").symlink_to(root / ".hidden")
  found, said = opened(root)
  assert found == BOTH | {"4.png": 0, "5.png": 0, "single.png": 1, "6.png": 0}
  assert "out of its class" not in said


def test_a_link_to_a_file_of_another_class_is_left_out(root):
  (root / "a" / "x.png").symlink_to("../b/2.png")
  (root / "a" / "y.png").symlink_to(root / "b" / "3.png")
  (root / "a" / "z.png").symlink_to("1.png")  # of its own: taken twice on purpose
  found, said = opened(root)
  assert found == BOTH | {"z.png": 0}
  assert "2 .png (a link out of its class)" in said


@pytest.mark.parametrize(
  ("target", "match"),
  [
    ("b", r"b and c are the same directory|c and b are the same"),
    ("b/deep", r"c is a link to a directory in b"),
    (".", r"c is a link to .*, which holds all classes"),
    ("..", r"c is a link to .*, which holds all classes"),
  ],
)
def test_a_class_that_is_a_link_to_others_is_refused(root, target, match):
  write(root / "b" / "deep", "4.png")
  (root / "c").symlink_to(target)
  with pytest.raises(InputError, match=match):
    opened(root)


@pytest.mark.parametrize("target", ["loop", "gone", "x" * 300])
def test_links_that_lead_nowhere_are_no_directories(root, target):
  if len(target) < 255:
    (root / "loop").symlink_to(target)
    (root / "a" / "loop").symlink_to(target)
  (root / "a" / "self.png").symlink_to("self.png")
  (root / "a" / "self.png").unlink()
  assert opened(root)[0] == BOTH
  assert [path.name for path in images.find(root)] == ["1.png", "2.png", "3.png"]


def test_two_links_a_level_are_not_a_billion_directories(root, tmp_path):
  pool = tmp_path / "pool"
  for level in range(30):
    directory = write(pool / str(level), f"{level}-.png")
    for name in "xy" if level < 29 else "":
      (directory / name).symlink_to(pool / str(level + 1))
  (root / "a" / "in").symlink_to(pool / "0")
  with hanging.never():
    assert len(opened(root)[0]) == 33


def test_directories_may_be_deep_but_not_without_end(root):
  directory = root / "a"
  for level in range(1000):
    directory = directory / "d"
    directory.mkdir()
    if level in (10, 900):
      write(directory, f"deep{level}.png")
  try:
    found, said = opened(root)
    assert found == BOTH | {"deep10.png": 0}
    assert "1 d/ (more than 64 directories deep)" in said
  finally:
    subprocess.run(["rm", "-rf", root / "a"], check=True)  # shutil's calls itself


def test_links_of_a_directory_without_classes_are_followed_once(tmp_path):
  """Images that a file of labels names, or that are predicted."""
  root = write(tmp_path / "all", "1.png")
  write(tmp_path / "beside", "2.png")
  (root / "beside").symlink_to("../beside")
  (root / "up").symlink_to("..")
  (root / "me").symlink_to(".")
  found = scan(root, root)
  assert found.names == ["1.png", "beside/2.png"]
  assert found.left == {"up/ (a link out of its class)": 1}
  assert [os.path.basename(path) for path in images.find(root)] == ["1.png", "2.png"]


def test_a_data_set_whose_path_is_no_utf_8_has_a_cache(tmp_path, monkeypatch):
  monkeypatch.setattr("asvit_jax.data.sources.listing._LEAST", 1)
  root = tmp_path / os.fsdecode(b"\xff[1]\n") / "train"
  write(root / "a", "1.png")
  write(root / os.fsdecode(b"\xfe"), "2.png", "3.png")
  for _ in range(2):
    assert opened(root, cache=tmp_path / "cache")[0] == BOTH
  assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.fixture
def pooled(tmp_path):
  """Two classes of links to where all images lie, beside them."""
  root = tmp_path / "train"
  write(root / "all_images", "1.png", "2.png")
  for name, number in (("a", 1), ("b", 2)):
    (root / name).mkdir()
    (root / name / f"{number}.png").symlink_to(f"../all_images/{number}.png")
  return root


@pytest.mark.parametrize("cached", [False, True])
def test_links_to_images_beside_the_classes_need_a_file_of_classes(pooled, cached, monkeypatch):
  monkeypatch.setattr("asvit_jax.data.sources.listing._LEAST", 1)
  cache = pooled.parent / "cache" if cached else ""
  (pooled.parent / "classes").write_text("a\nb\n")
  for _ in range(2):
    with pytest.raises(InputError, match="all images of a, b are links into all_images, which is"):
      opened(pooled, cache=cache)
    found, said = opened(pooled, cache=cache, classes=pooled.parent / "classes")
    assert found == {"1.png": 0, "2.png": 1}
    assert "that are no classes: all_images" in said


def test_a_link_to_itself_beside_links_to_images_is_no_directory(pooled):
  (pooled / "a" / "loop").symlink_to("loop")
  (pooled.parent / "classes").write_text("a\nb\n")
  found, said = opened(pooled, classes=pooled.parent / "classes")
  assert found == {"1.png": 0, "2.png": 1}
  assert "that are no classes: all_images" in said


def test_a_forgotten_class_is_no_place_of_links(pooled):
  write(pooled / "a", "3.png")  # so that this class has images of its own
  write(pooled / "c", "4.png")
  (pooled / "a" / "4.png").symlink_to("../c/4.png")
  (pooled.parent / "classes").write_text("a\nb\n")
  with pytest.raises(InputError, match="1 directories that are not among the 2 classes: c"):
    opened(pooled, classes=pooled.parent / "classes")


def test_two_forms_of_a_name_are_one_class_and_it_is_said(tmp_path):
  write(tmp_path / "train" / "caf\u00e9", "1.png")
  write(tmp_path / "train" / "cafe\u0301", "2.png")
  found, said = opened(tmp_path / "train")
  assert set(found.values()) == {0}
  assert "form of Unicode only, and are one class: caf\u00e9" in said
