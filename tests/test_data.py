import hashlib
import io
import itertools
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from asvit_jax.data import benchmark, digits, loader, prepared, sources, transforms
from asvit_jax.errors import InputError

SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "imagenet_sample"


def make_config(**data):
  config = ConfigDict(
    {
      "data": {
        "name": "folder",
        "dir": "",
        "classes": "",
        "train_split": "train",
        "eval_split": "val",
        "crop_ratio": 0.8,
        "crop_scale": (0.2, 1.0),
        "hflip": True,
        "rand_augment": 0.0,
        "rand_augment_deviation": 0.5,
        "rand_augment_operations": 2,
        "color_jitter": 0.0,
        "repeats": 1,
        "workers": 0,
        "shift": 0,
        "max_bad_images": 0,
      },
      "model": {"image_size": 16, "num_classes": 3},
      "batch_size": 4,
      "eval": {"batch_size": 4},
      "seed": 3,
    }
  )
  config.data.update({k: str(v) if isinstance(v, os.PathLike) else v for k, v in data.items()})
  return config


def smooth_image(rng, height=96, width=80):
  small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
  return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encode(image, kind="PNG"):
  file = io.BytesIO()
  image.save(file, kind)
  return file.getvalue()


@pytest.fixture
def folder(tmp_path):
  rng = np.random.default_rng(0)
  for split, counts in {"train": (5, 3, 3), "val": (2, 0, 3)}.items():
    for name, count in zip("abc", counts, strict=True):
      directory = tmp_path / split / name
      if count:
        directory.mkdir(parents=True)
      for i in range(count):
        smooth_image(rng).save(directory / f"{i}.{('JPG', 'png')[i % 2]}")
  return tmp_path


@pytest.fixture(scope="module")
def small_digits(tmp_path_factory):
  return digits.prepare(tmp_path_factory.mktemp("digits"), train_images=200, val_images=60)


def open_folder(config, split="train", **kwargs):
  return sources.open_source(config.data, split, **kwargs)


def assert_same_batches(ours, theirs):
  for a, b in zip(ours, theirs, strict=True):
    assert a.keys() == b.keys()
    for key in a:
      np.testing.assert_array_equal(a[key], b[key])


# Digits


def read_digits(builder, split):
  return prepared.TfdsSource(builder, "digits", split)


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


# Sources


def test_folder_labels_follow_the_classes_file(folder):
  (folder / "classes.txt").write_text("c cat\nzebra\nb\na\n")
  source = open_folder(make_config(dir=folder, classes=str(folder / "classes.txt")), "val")
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
  source = open_folder(make_config(dir=folder), "val")
  assert [source[i]["label"] for i in range(5)] == [0, 0, 2, 2, 2]


def test_flat_folder_serves_as_the_evaluation_split(folder):
  config = make_config(dir=folder / "val")
  assert len(open_folder(config, "val", allow_flat=True)) == 5
  with pytest.raises(InputError, match=r"no split 'val'.*found a, c"):
    open_folder(config, "val")


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
    open_folder(make_config(dir=folder, classes=str(file)))


@pytest.mark.parametrize(
  ("data", "split", "message"),
  [
    ({"name": "imagenet"}, "train", "'imagenet' is not known: give 'digits', 'folder'"),
    ({"name": "digits"}, "train", "data.dir is not set"),
    ({"name": "folder"}, "train", "data.dir is not set"),
    ({"dir": "{}/nowhere"}, "train", "nowhere.*is not a directory"),
    ({"dir": "{}"}, "test", "no split 'test'.*found train, val"),
    ({"dir": "{}/train"}, "a", "no images"),
    ({"name": "tfds:cifar10", "dir": "{}"}, "train", "not prepared under .*cifar10: set data.dir"),
  ],
)
def test_missing_data_is_explained(folder, data, split, message):
  if "dir" in data:
    data = data | {"dir": data["dir"].format(folder)}
  with pytest.raises(InputError, match=message):
    open_folder(make_config(**data), split)


def test_prepared_tfds_data_is_found_by_name(small_digits):
  root = small_digits.data_path.parents[2]
  name = "tfds:translated_cluttered_digits"
  ours = read_digits(small_digits, "val")
  for full_name in (name, f"{name}/200-60", f"{name}/200-60:1.0.0"):
    found = open_folder(make_config(name=full_name, dir=root), "val")
    assert found[59]["image"] == ours[59]["image"]
  assert len(open_folder(make_config(name=name, dir=root), "train[:10%]")) == 20
  with pytest.raises(InputError, match="no split 'test': choose from train, val"):
    open_folder(make_config(name=name, dir=root), "test")
  with pytest.raises(InputError, match="not prepared"):
    open_folder(make_config(name=f"{name}:9.9.9", dir=root), "train")


def test_sources_survive_pickling(folder, small_digits):
  for source in (open_folder(make_config(dir=folder)), read_digits(small_digits, "val")):
    copy = pickle.loads(pickle.dumps(source))
    assert (len(copy), copy.classes) == (len(source), source.classes)
    assert copy[3]["image"] == source[3]["image"]


def test_check_images_names_every_broken_file_at_once(folder):
  (folder / "train/a/broken.jpg").write_bytes(b"not an image")
  whole = (folder / "train/b/0.JPG").read_bytes()
  (folder / "train/b/truncated.jpg").write_bytes(whole[: len(whole) // 2])
  with pytest.raises(InputError, match="2 of 13 checked") as error:
    sources.check_images(open_folder(make_config(dir=folder)), limit=100)
  assert "broken.jpg" in str(error.value)
  assert "truncated.jpg" in str(error.value)


# Transforms


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "LA"])
def test_every_colour_mode_decodes_to_rgb(mode):
  image = Image.new("RGB", (9, 7), (255, 255, 255)).convert(mode)
  decoded = transforms.decode(encode(image, "JPEG" if mode == "CMYK" else "PNG"), "file")
  assert (decoded.mode, decoded.size) == ("RGB", (9, 7))
  assert np.asarray(decoded).min() > 250


def test_center_crop_is_resize_256_and_crop_224():
  image = smooth_image(np.random.default_rng(0), height=375, width=500)
  # torchvision: the longer side is int(256 · 500 / 375) = 341, the left edge round(58.5) = 58.
  expected = image.resize((341, 256), Image.Resampling.BICUBIC).crop((58, 16, 282, 240))
  np.testing.assert_array_equal(transforms.center_crop(image, 224, 0.875), expected)


def test_center_crop_of_the_right_size_changes_nothing():
  image = smooth_image(np.random.default_rng(0), 48, 48)
  np.testing.assert_array_equal(transforms.center_crop(image, 48, 1.0), image)


@pytest.mark.parametrize("hw", [(120, 90), (90, 120), (64, 64), (300, 41)])
@pytest.mark.parametrize("crop_ratio", [1.0, 0.875, 0.6])
def test_box_follows_the_center_crop(hw, crop_ratio):
  """A white rectangle, cropped as an image, lies where its box says."""
  pixels = np.zeros((*hw, 3), np.uint8)
  box = np.array([0.3, 0.4, 0.7, 0.95])
  y0, x0, y1, x1 = np.round(box.reshape(2, 2) * hw).astype(int).reshape(4)
  pixels[y0:y1, x0:x1] = 255
  exact = np.array([y0 / hw[0], x0 / hw[1], y1 / hw[0], x1 / hw[1]])
  crop = np.asarray(transforms.center_crop(Image.fromarray(pixels), 56, crop_ratio))[..., 0] > 127
  rows, columns = np.nonzero(crop)
  seen = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
  ours = transforms.center_crop_box(exact, hw, 56, crop_ratio) * 56
  np.testing.assert_allclose(ours, seen, atol=1.0)


def test_box_outside_the_crop_is_empty():
  ymin, xmin, ymax, xmax = transforms.center_crop_box((0, 0, 0.1, 0.1), (50, 50), 20, 0.5)
  assert (ymax - ymin) * (xmax - xmin) == 0


def crop_of_ramp(rng, height, width, **kwargs):
  """Crops an image whose pixels hold their coordinates; returns the crop's height and width."""
  y, x = np.mgrid[:height, :width]
  ramp = Image.fromarray(np.stack([y, x, 0 * x], -1).astype(np.uint8))
  crop = np.asarray(transforms.random_resized_crop(ramp, 64, rng, **kwargs)).astype(int)
  return (np.ptp(crop[..., i]) + 1 for i in (0, 1))


def test_random_resized_crop_keeps_area_and_aspect_in_range():
  rng = np.random.default_rng(0)
  shapes = np.array([[*crop_of_ramp(rng, 200, 250, scale=(0.2, 0.6))] for _ in range(200)])
  share, aspect = shapes.prod(1) / (200 * 250), shapes[:, 1] / shapes[:, 0]
  assert 0.18 < share.min() < 0.25
  assert 0.55 < share.max() < 0.62
  assert 0.72 < aspect.min() < 0.8
  assert 1.25 < aspect.max() < 1.38


def test_random_resized_crop_of_a_strip_falls_back_to_its_centre():
  height, width = crop_of_ramp(np.random.default_rng(0), 30, 240, scale=(1.0, 1.0))
  assert (height, width) == (30, 40)


def test_random_shift_moves_pixels_and_lets_black_in():
  image = Image.new("RGB", (20, 20))
  image.putpixel((10, 10), (255, 255, 255))
  rng = np.random.default_rng(0)
  shifted = [np.asarray(transforms.random_shift(image, 2, rng)) for _ in range(200)]
  places = {tuple(np.argwhere(s[..., 0])[0]) for s in shifted}
  assert places == set(itertools.product(range(8, 13), repeat=2))
  white = np.asarray(transforms.random_shift(Image.new("RGB", (8, 8), (255,) * 3), 3, rng))
  assert white.min() == 0


def test_normalize_is_the_imagenet_formula():
  images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
  expected = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  normal = transforms.normalize(images)
  assert normal.dtype == np.float32
  np.testing.assert_allclose(normal, expected, atol=1e-6)


# Loader


def take(batches, count):
  return list(itertools.islice(batches, count))


def test_resumed_batches_equal_uninterrupted_ones(folder):
  config = make_config(dir=folder)
  source = open_folder(config)
  whole = take(loader.train_batches(config, source), 8)
  assert_same_batches(take(loader.train_batches(config, source, start_step=5), 3), whole[5:])


@pytest.mark.parametrize("name", ["folder", "digits"])
def test_worker_processes_change_no_pixel(folder, small_digits, name):
  config = make_config(name=name, dir=folder)
  config.model.num_classes = {"folder": 3, "digits": 10}[name]
  source = read_digits(small_digits, "train") if name == "digits" else open_folder(config)
  threads = take(loader.train_batches(config, source, start_step=2), 6)
  config.data.workers = 2
  assert_same_batches(take(loader.train_batches(config, source, start_step=2), 6), threads)


def test_batches_of_the_shards_make_up_the_global_batch(folder):
  config = make_config(dir=folder)
  source = open_folder(config)
  shards = [take(loader.train_batches(config, source, 3, i, 2), 4) for i in (0, 1)]
  joined = [
    {key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*shards, strict=True)
  ]
  assert_same_batches(joined, take(loader.train_batches(config, source, 3), 4))


def test_every_epoch_has_every_image_once_in_a_new_order(folder):
  config = make_config(dir=folder, crop_scale=(1.0, 1.0), hflip=False)
  config.batch_size = 3  # 11 images: batches straddle epochs
  source = open_folder(config)
  images = np.concatenate([b["image"] for b in take(loader.train_batches(config, source), 11)])
  epochs = [[image.tobytes() for image in images[i : i + 11]] for i in (0, 11, 22)]
  everything = set(epochs[0])
  assert len(everything) == 11
  for epoch in epochs[1:]:
    assert set(epoch) == everything
    assert epoch != epochs[0]


def test_augmentation_differs_between_epochs_and_seeds(folder):
  config = make_config(dir=folder)
  config.batch_size = 11
  source = open_folder(config)
  first, second = (
    {image.tobytes() for image in b["image"]} for b in take(loader.train_batches(config, source), 2)
  )
  config.seed += 1
  other = {i.tobytes() for i in next(loader.train_batches(config, source))["image"]}
  assert not first & second
  assert not other & (first | second)


AUGMENTED = {"rand_augment": 9.0, "color_jitter": 0.4, "repeats": 3}


def test_repeats_are_views_of_two_images_in_turn_across_batches(folder):
  config = make_config(dir=folder, repeats=3)
  source = open_folder(config)
  config.data.update({"crop_scale": (1.0, 1.0), "hflip": False})
  plain = take(loader.train_batches(config, source), 17)  # 68 views: six of each image, and two
  views = [image.tobytes() for batch in plain for image in batch["image"]]
  groups = [set(views[6 * i + j : 6 * i + 6 : 2]) for i in range(11) for j in (0, 1)]
  assert {len(group) for group in groups} == {1}
  order = [group.pop() for group in groups]
  assert len(set(order[:11])) == 11
  assert set(order[:11]) == set(order[11:])
  assert order[:11] != order[11:]

  config.data.update(AUGMENTED)
  augmented = take(loader.train_batches(config, source), 17)
  views = [image.tobytes() for batch in augmented for image in batch["image"]]
  assert len(set(views)) > 60
  labels = [np.concatenate([b["label"] for b in batches]) for batches in (plain, augmented)]
  np.testing.assert_array_equal(*labels)


def test_augmented_repeats_keep_the_contract(folder):
  config = make_config(dir=folder, **AUGMENTED)
  source = open_folder(config)
  whole = take(loader.train_batches(config, source), 6)
  assert_same_batches(take(loader.train_batches(config, source, start_step=2), 4), whole[2:])
  shards = [take(loader.train_batches(config, source, 2, i, 2), 4) for i in (0, 1)]
  joined = [
    {key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*shards, strict=True)
  ]
  assert_same_batches(joined, whole[2:])
  config.data.workers = 2
  assert_same_batches(take(loader.train_batches(config, source, start_step=2), 4), whole[2:])


def test_batch_of_one_image_works(folder):
  config = make_config(dir=folder)
  config.batch_size = 1
  assert next(loader.train_batches(config, open_folder(config)))["image"].shape == (1, 16, 16, 3)


@pytest.mark.parametrize("shard_count", [1, 2, 4])
def test_evaluation_sees_every_image_once_in_order(folder, shard_count):
  config = make_config(dir=folder)
  source = open_folder(config)  # 11 images, global batches of 4
  shards = [list(loader.eval_batches(config, source, i, shard_count)) for i in range(shard_count)]
  assert {len(shard) for shard in shards} == {3}
  batches = [batch for step in zip(*shards, strict=True) for batch in step]
  valid = np.concatenate([b["valid"] for b in batches])
  files = [file for b in batches for file in b["file"]]
  images = np.concatenate([b["image"] for b in batches])
  assert valid.tolist() == [True] * 11 + [False]
  assert files == [source[i]["file"] for i in range(11)] + [""]
  assert not images[~valid].any()
  for i in range(11):
    view = transforms.center_crop(transforms.decode(source[i]["image"], ""), 16, 0.8)
    np.testing.assert_array_equal(images[i], view)


def test_evaluation_boxes_are_in_the_frame_of_the_crop(small_digits):
  config = make_config(name="digits", crop_ratio=0.8)
  config.model.num_classes = 10
  source = read_digits(small_digits, "val")
  batch = next(loader.eval_batches(config, source))
  expected = transforms.center_crop_box(source[1]["box"], (48, 48), 16, 0.8)
  np.testing.assert_array_equal(batch["box"][1], expected)
  assert (batch["box"].shape, batch["box"].dtype) == ((4, 4), np.float32)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image_reaches_the_caller_by_name(folder, workers):
  (folder / "train/b/0.JPG").write_bytes(b"broken")
  config = make_config(dir=folder, workers=workers)
  with pytest.raises(InputError, match=r"b/0\.JPG is not a readable image"):
    take(loader.train_batches(config, open_folder(config)), 6)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_left_out_and_counted_where_allowed(
  folder, workers, tmp_path_factory, capsys
):
  replaced = tmp_path_factory.mktemp("replaced") / "images"
  shutil.copytree(folder, replaced)
  for file in ("a/1.png", "a/2.JPG"):  # in whose place a/3.png comes
    shutil.copy(folder / "train/a/3.png", replaced / "train" / file)
  (folder / "train/a/1.png").write_bytes(b"broken")
  (folder / "train/a/2.JPG").write_bytes(b"")
  (folder / "val/a/0.JPG").unlink()
  (folder / "val/a/0.JPG").mkdir()  # nothing to read

  config = make_config(dir=folder, workers=workers, repeats=2, max_bad_images=2)
  source, bad = open_folder(config), set()
  clean = open_folder(make_config(dir=replaced))
  ours = take(loader.train_batches(config, source, bad_images=bad), 8)
  assert_same_batches(ours, take(loader.train_batches(config, clean), 8))
  assert {message.split()[0] for message in bad} == {
    str(folder / "train" / file) for file in ("a/1.png", "a/2.JPG")
  }
  warnings = capsys.readouterr().err
  assert warnings.count("left out an unreadable image") == 2
  assert "(2, data.max_bad_images is 2)" in warnings

  val = open_folder(config, "val")
  sources.check_images(val, 10, config.data.max_bad_images)
  batches = list(loader.eval_batches(config, val))
  assert [*map(bool, np.concatenate([b["valid"] for b in batches]))] == [
    *(False, True, True, True),
    *(True, False, False, False),
  ]

  config.data.max_bad_images = 1
  with pytest.raises(InputError, match=r"a/[12]\.\w+ is not a readable image"):
    take(loader.train_batches(config, source), 8)
  with pytest.raises(InputError, match="2 of 11 checked images cannot be used"):
    sources.check_images(source, 100, config.data.max_bad_images)


def test_the_limit_of_unreadable_images_is_over_all_batches(folder):
  for file in ("a/0.JPG", "b/0.JPG", "c/0.JPG"):
    (folder / "train" / file).write_bytes(b"broken")
  config = make_config(dir=folder, max_bad_images=2)
  with pytest.raises(InputError, match=r"too many unreadable images \(3, data.max_bad_images is 2"):
    take(loader.train_batches(config, open_folder(config)), 20)


def test_batch_size_and_classes_must_fit(folder):
  config = make_config(dir=folder)
  source = open_folder(config)
  with pytest.raises(InputError, match="batch_size 4 does not divide among 3"):
    loader.train_batches(config, source, shard_count=3)
  config.model.num_classes = 1000
  with pytest.raises(InputError, match=r"has 3 classes, but model\.num_classes is 1000"):
    loader.eval_batches(config, source)


def test_the_benchmark_accounts_for_all_the_time_of_a_core(folder):
  config = make_config(dir=folder, rand_augment=9.0, repeats=2)
  result = benchmark.measure(config, batches=2, rounds=1)
  assert result["images_per_s_a_core"] > 0
  assert result["images_per_s"] > 0
  parts = {"decode", "random_resized_crop", "rand_augment", "other"}
  assert set(result["shares"]) == parts
  assert sum(result["shares"].values()) == pytest.approx(1)
  assert min(result["shares"].values()) > 0


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs shared/data/imagenet_sample")
def test_imagenet_sample_opens_with_its_classes_file():
  config = make_config(dir=str(SAMPLE), classes=str(SAMPLE / "classes.txt"))
  source = open_folder(config, "val")
  synsets = (SAMPLE / "classes.txt").read_text().split("\n")
  assert (len(source), len(source.classes)) == (300, 1000)
  for i in range(0, 300, 50):
    assert Path(source[i]["file"]).parent.name == synsets[source[i]["label"]].split()[0]
