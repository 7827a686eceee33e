"""Directories of images: which label each gets, and what is said where they are not as expected."""

import os
from pathlib import Path

import numpy as np
import pytest
from image_sets import make_config, open_source
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.data import sources, transforms
from asvit_jax.data.files import SUFFIXES


def test_folder_labels_follow_the_classes_file(folder):
  (folder / "classes.txt").write_text("c cat\nzebra\nb\na\n")
  source = open_source(make_config(dir=folder, classes=str(folder / "classes.txt")), "val")
  assert source.classes == ("c", "zebra", "b", "a")
  assert [(source[i]["label"], Path(source[i]["file"]).parent.name) for i in range(5)] == [
    (0, "c"),
    (0, "c"),
    (0, "c"),
    (3, "a"),
    (3, "a"),
  ]


def test_validation_labels_follow_the_training_classes(folder):
  """`val` has no directory b; c must still be class 2."""
  source = open_source(make_config(dir=folder), "val")
  assert [source[i]["label"] for i in range(5)] == [0, 0, 2, 2, 2]


def test_flat_folder_serves_as_the_evaluation_split(folder):
  config = make_config(dir=folder / "val")
  assert len(open_source(config, "val", allow_flat=True)) == 5
  with pytest.raises(InputError, match=r"no split 'val'.*found a, c"):
    open_source(config, "val")


@pytest.mark.parametrize(
  ("classes", "message"),
  [
    ("a\nb\n", "not among the 2 classes: c"),
    ("a\nb\nc\na\n", "more than once: a"),
    ("a\n\nb\nc\n", "line 2"),
    ("", "line 1"),
    (None, "cannot be read"),
  ],
)
def test_bad_classes_file_is_explained(folder, classes, message):
  file = folder / "classes.txt"
  if classes is not None:
    file.write_text(classes)
  with pytest.raises(InputError, match=message):
    open_source(make_config(dir=folder, classes=str(file)))


def test_imagenet_sample_opens_with_its_classes_file(shared):
  sample = shared / "data" / "imagenet_sample"
  if not sample.is_dir():
    pytest.skip(f"needs {sample}")
  config = make_config(dir=sample, classes=sample / "classes.txt")
  source = open_source(config, "val")
  synsets = (sample / "classes.txt").read_text().split("\n")
  assert (len(source), len(source.classes)) == (300, 1000)
  for i in range(0, 300, 50):
    assert Path(source[i]["file"]).parent.name == synsets[source[i]["label"]].split()[0]


def test_class_names_are_the_rest_of_the_line_else_the_directories(folder):
  (folder / "train" / ".hidden").mkdir()
  assert sources.class_names(make_config(dir=folder).data) == ["a", "b", "c"]
  (folder / "classes.txt").write_text("c tabby cat\nb\na  ant, emmet \n\n")
  named = make_config(dir=folder, classes=folder / "classes.txt")
  assert sources.class_names(named.data) == ["tabby cat", "b", "ant, emmet"]
  assert open_source(named).classes == ("c", "b", "a")
  assert sources.class_names(make_config(dir=folder / "val").data) is None
  assert sources.class_names(make_config().data) is None


def test_only_image_files_that_are_not_hidden_are_taken(folder):
  for name in (".0.jpg", "notes.txt", "upper.WEBP"):
    (folder / "train/a" / name).write_bytes(b"")
  files = {Path(example["file"]).name for example in open_source(make_config(dir=folder))}
  assert "upper.WEBP" in files
  assert all(file.lower().endswith(SUFFIXES) and file[0] != "." for file in files)


def test_every_suffix_of_images_is_read_also_deeper_and_the_rest_is_counted(folder, capsys):
  image = Image.new("RGB", (6, 4), (200, 30, 60))
  kinds = {"jfif": "JPEG", "tif": "TIFF", "TIFF": "TIFF", "gif": "GIF", "webp": "WEBP"}
  kinds |= {"jp2": "JPEG2000", "ppm": "PPM", "tga": "TGA", "jpe": "JPEG"}
  root = folder / "train"
  for directory in ("a", "b/deeper/still"):
    (root / directory).mkdir(parents=True, exist_ok=True)
    for suffix, kind in kinds.items():
      image.save(root / directory / f"new.{suffix}", kind)
    for name in ("x.heic", "x.svg", ".y.png", "no_suffix", ".DS_Store"):
      (root / directory / name).write_bytes(b"")
  (root / "b" / "loop").symlink_to(root / "b")
  (root / "beside.jpg").write_bytes(b"")
  (root / "empty").mkdir()
  source = open_source(make_config(dir=folder))
  assert len(source) == 11 + 18
  examples = [source[i] for i in range(29)]
  assert [e["label"] for e in examples] == [0] * 14 + [1] * 12 + [2] * 3 == source.labels.tolist()
  new = [e for e in examples if "/new." in e["file"]]
  assert {np.asarray(transforms.decode(e["image"], e["file"])).shape for e in new} == {(4, 6, 3)}
  for seen in (capsys.readouterr().err, "\n".join(sources.notes(source))):
    assert f"left out of {root}: 2 .heic, 2 .svg, 2 hidden .png, 2 without a suffix" in seen
    assert f"left out of {root}, images in no directory of a class: 1" in seen
    assert f"classes without images in {root}: 1 (empty)" in seen


@pytest.mark.parametrize("place", ["", "val", "val/c", "val/c/deeper"])
def test_a_directory_that_cannot_be_read_is_one_error(folder, monkeypatch, place):
  """By a stand-in for its permissions, which root does not mind."""
  (folder / "val/c/deeper").mkdir()
  scandir = os.scandir

  def denied(path):
    if Path(path) == folder / place:
      raise PermissionError(13, "Permission denied")
    return scandir(path)

  monkeypatch.setattr(os, "scandir", denied)
  with pytest.raises(InputError, match=r"cannot be listed \(Permission denied\): check its perm"):
    open_source(make_config(dir=folder / "val" if not place else folder), "val", allow_flat=True)
    open_source(make_config(dir=folder), "none")
