"""The embedded digits: the same for everybody, complete or not there, box and clutter as said."""

import hashlib
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from image_sets import read_digits

from asvit_jax.core.errors import InputError
from asvit_jax.data import digits, transforms


def test_digits_prepared_twice_are_identical_bytes(small_digits, tmp_path):
  again = digits.prepare(tmp_path, train_images=200, val_images=60)

  def digest(builder):
    files = sorted(Path(builder.data_dir).glob("*array_record*"))
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]

  assert len(digest(again)) == 2
  assert digest(again) == digest(small_digits)


def test_digits_are_reused_once_prepared(small_digits):
  files = {f: f.stat().st_mtime_ns for f in Path(small_digits.data_dir).iterdir()}
  again = digits.prepare(small_digits.data_path.parents[2], train_images=200, val_images=60)
  assert {f: f.stat().st_mtime_ns for f in Path(again.data_dir).iterdir()} == files


def test_interrupted_preparation_leaves_nothing_and_is_redone(tmp_path, monkeypatch):
  compose = digits.compose
  calls = itertools.count()

  def interrupted(*args):
    if next(calls) == 5:
      raise KeyboardInterrupt
    return compose(*args)

  monkeypatch.setattr(digits, "compose", interrupted)
  with pytest.raises(KeyboardInterrupt):
    digits.prepare(tmp_path, train_images=10, val_images=5)
  monkeypatch.setattr(digits, "compose", compose)
  builder = digits.prepare(tmp_path, train_images=10, val_images=5)
  assert len(read_digits(builder, "train")) == 10


def test_no_handwriting_is_in_both_splits(small_digits):
  def glyphs(split):
    source = read_digits(small_digits, split)
    return {source[i]["file"].split("glyph")[1] for i in range(len(source))}

  assert len(glyphs("train")) > 100
  assert not glyphs("train") & glyphs("val")


def test_box_is_the_tight_box_of_the_digit():
  glyphs, _ = digits.load_glyphs()
  for i in range(50):
    rng = np.random.default_rng(i)
    canvas, box = digits.compose(glyphs[i], glyphs[:0], rng)
    rows, columns = np.nonzero(canvas >= digits.INK)
    tight = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    np.testing.assert_allclose(box * digits.CANVAS, tight, atol=1e-4)


def test_clutter_adds_ink_outside_the_box_only_brighter():
  glyphs, _ = digits.load_glyphs()
  alone, _ = digits.compose(glyphs[0], glyphs[:0], np.random.default_rng(1))
  cluttered, box = digits.compose(glyphs[0], glyphs[1:4], np.random.default_rng(1))
  assert (cluttered >= alone).all()
  y0, x0, y1, x1 = np.round(box * digits.CANVAS).astype(int)
  outside = np.ones_like(alone, bool)
  outside[y0:y1, x0:x1] = False
  assert cluttered[outside].max() > digits.INK > alone[outside].max()


def test_digit_examples_have_everything(small_digits):
  loaded = "tensorflow" in sys.modules  # by a test of exports
  source = read_digits(small_digits, "val")
  example = source[7]
  assert source.classes == tuple("0123456789")
  assert example["file"].startswith("digits/val/00007")
  assert transforms.decode(example["image"], "").size == (48, 48)
  assert example["box"].dtype == np.float32
  assert ("tensorflow" in sys.modules) == loaded


def test_there_is_no_other_split(small_digits):
  with pytest.raises(InputError, match="digits has no split 'test': choose from train, val"):
    read_digits(small_digits, "test")


def test_what_is_there_and_is_no_data_set_stays_and_gets_a_line(tmp_path):
  place = tmp_path / "translated_cluttered_digits" / "12-6" / "1.0.0"
  place.mkdir(parents=True)
  (place / "mine").write_text("the user's own")
  with pytest.raises(InputError, match=r"1\.0\.0 cannot be opened .*: prepare it again"):
    digits.prepare(tmp_path, 12, 6)
  assert (place / "mine").read_text() == "the user's own"
