import shutil

import cloudpickle
import numpy as np
import pytest
from image_sets import (
  PREPROCESSING,
  assert_same_batches,
  make_config,
  open_source,
  read_digits,
  take,
)
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.data import loader, sources, transforms
from asvit_jax.data.preprocessing import Preprocessing


def train_batches(config, source, *args, **kwargs):
  return loader.train_batches(config, source, PREPROCESSING, *args, **kwargs)


def eval_batches(config, source, *args):
  return loader.eval_batches(config, source, PREPROCESSING, *args)


def test_resumed_batches_equal_uninterrupted_ones(folder):
  config = make_config(dir=folder)
  source = open_source(config)
  whole = take(train_batches(config, source), 8)
  assert_same_batches(take(train_batches(config, source, start_step=5), 3), whole[5:])


@pytest.mark.parametrize("name", ["folder", "digits", "image_sets:shades"])
def test_worker_processes_change_no_pixel(folder, small_digits, name):
  config = make_config(name=name, dir=folder)
  config.model.num_classes = {"folder": 3, "digits": 10}.get(name, 2)
  source = read_digits(small_digits, "train") if name == "digits" else open_source(config)
  threads = take(train_batches(config, source, start_step=2), 6)
  config.data.workers = 2
  assert_same_batches(take(train_batches(config, source, start_step=2), 6), threads)


def test_batches_of_the_shards_make_up_the_global_batch(folder):
  config = make_config(dir=folder)
  source = open_source(config)
  shards = [take(train_batches(config, source, 3, i, 2), 4) for i in (0, 1)]
  joined = [
    {key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*shards, strict=True)
  ]
  assert_same_batches(joined, take(train_batches(config, source, 3), 4))


def test_every_epoch_has_every_image_once_in_a_new_order(folder):
  config = make_config(dir=folder, crop_scale=(1.0, 1.0), hflip=False)
  config.batch_size = 3  # 11 images: batches straddle epochs
  source = open_source(config)
  images = np.concatenate([b["image"] for b in take(train_batches(config, source), 11)])
  epochs = [[image.tobytes() for image in images[i : i + 11]] for i in (0, 11, 22)]
  everything = set(epochs[0])
  assert len(everything) == 11
  for epoch in epochs[1:]:
    assert set(epoch) == everything
    assert epoch != epochs[0]


def test_augmentation_differs_between_epochs_and_seeds(folder):
  config = make_config(dir=folder)
  config.batch_size = 11
  source = open_source(config)
  first, second = (
    {image.tobytes() for image in b["image"]} for b in take(train_batches(config, source), 2)
  )
  config.seed += 1
  other = {i.tobytes() for i in next(train_batches(config, source))["image"]}
  assert not first & second
  assert not other & (first | second)


AUGMENTED = {"rand_augment": 9.0, "color_jitter": 0.4, "repeats": 3}


def test_repeats_are_views_of_two_images_in_turn_across_batches(folder):
  config = make_config(dir=folder, repeats=3)
  source = open_source(config)
  config.data.update({"crop_scale": (1.0, 1.0), "hflip": False})
  plain = take(train_batches(config, source), 17)  # 68 views: six of each image, and two
  views = [image.tobytes() for batch in plain for image in batch["image"]]
  groups = [set(views[6 * i + j : 6 * i + 6 : 2]) for i in range(11) for j in (0, 1)]
  assert {len(group) for group in groups} == {1}
  order = [group.pop() for group in groups]
  assert len(set(order[:11])) == 11
  assert set(order[:11]) == set(order[11:])
  assert order[:11] != order[11:]

  config.data.update(AUGMENTED)
  augmented = take(train_batches(config, source), 17)
  views = [image.tobytes() for batch in augmented for image in batch["image"]]
  assert len(set(views)) > 60
  labels = [np.concatenate([b["label"] for b in batches]) for batches in (plain, augmented)]
  np.testing.assert_array_equal(*labels)


def test_augmented_repeats_keep_the_contract(folder):
  config = make_config(dir=folder, **AUGMENTED)
  source = open_source(config)
  whole = take(train_batches(config, source), 6)
  assert_same_batches(take(train_batches(config, source, start_step=2), 4), whole[2:])
  shards = [take(train_batches(config, source, 2, i, 2), 4) for i in (0, 1)]
  joined = [
    {key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*shards, strict=True)
  ]
  assert_same_batches(joined, whole[2:])
  config.data.workers = 2
  assert_same_batches(take(train_batches(config, source, start_step=2), 4), whole[2:])


def test_a_class_balanced_sampler_gives_every_class_equally_often(folder):
  """11 images of three classes, 5, 3 and 3."""
  config = make_config(dir=folder, crop_scale=(1.0, 1.0), hflip=False, sampler="class_balanced")
  source = open_source(config)
  batches = take(train_batches(config, source), 12)  # 48 images, 16 of each class
  labels = np.concatenate([batch["label"] for batch in batches])
  rows = labels.reshape(16, 3)
  assert (np.sort(rows) == [0, 1, 2]).all()
  assert len({tuple(row) for row in rows}) > 3
  images = [image.tobytes() for batch in batches for image in batch["image"]]
  for label, count in enumerate((5, 3, 3)):
    views = [image for image, other in zip(images, labels, strict=True) if other == label]
    for i in range(0, 15, count):  # all images of a class before one comes again
      assert len(set(views[i : i + count])) == count
  assert_same_batches(take(train_batches(config, source, start_step=5), 7), batches[5:])
  config.seed += 1
  other = np.concatenate([batch["label"] for batch in take(train_batches(config, source), 12)])
  assert not np.array_equal(other, labels)


def test_a_class_balanced_sampler_reads_labels_that_nobody_knows_and_repeats(folder):
  config = make_config(name="image_sets:shades", sampler="class_balanced", repeats=2)
  config.model.num_classes = 2
  dataset = loader.train_dataset(config, open_source(config), PREPROCESSING)
  sent = cloudpickle.loads(cloudpickle.dumps(dataset))  # as to workers
  for i in range(3):
    assert sorted(dataset[i]["label"]) == [0, 0, 1, 1]
    np.testing.assert_array_equal(sent[i]["image"], dataset[i]["image"])


def test_images_are_turned_unless_the_config_leaves_them(folder):
  """Black below, by a camera that was held upside down."""
  exif = Image.Exif()
  exif[0x0112] = 3
  pixels = np.zeros((20, 20, 3), np.uint8)
  pixels[:10] = 255
  for path in [*(folder / "train").rglob("*.*"), *(folder / "val").rglob("*.*")]:
    Image.fromarray(pixels).save(path, exif=exif)
  for exif_orientation, brightest in ((True, slice(8, 16)), (False, slice(0, 8))):
    config = make_config(
      dir=folder, exif_orientation=exif_orientation, crop_scale=(1.0, 1.0), hflip=False
    )
    for batch in (
      next(train_batches(config, open_source(config))),
      next(eval_batches(config, open_source(config, "val"))),
    ):
      assert (batch["image"][:, brightest].mean(axis=(1, 2, 3)) > 200).all()


def test_images_are_cut_to_size_as_the_network_expects(folder):
  """Whatever the config says of it."""
  config = make_config(dir=folder, hflip=False, crop_ratio=0.3, interpolation="lanczos")
  source = open_source(config)
  nearest = Preprocessing(crop_ratio=0.6, interpolation="nearest")
  views = {
    np.asarray(
      transforms.center_crop(transforms.decode(example["image"], ""), 16, nearest)
    ).tobytes()
    for example in sources.Sample(source, len(source))
  }
  (batch, *_) = loader.eval_batches(config, source, nearest)
  assert {image.tobytes() for image in batch["image"]} < views
  random = next(loader.train_batches(config, source, nearest))
  config.data.crop_scale = (1.0, 1.0)
  centred = next(loader.train_batches(config, source, nearest))
  assert {image.tobytes() for image in centred["image"]} < views
  # The pixels of a crop by "nearest" are those of the image, which others blend.
  pixels = {
    tuple(pixel)
    for example in sources.Sample(source, len(source))
    for pixel in np.asarray(transforms.decode(example["image"], "")).reshape(-1, 3)
  }
  assert {tuple(pixel) for pixel in random["image"].reshape(-1, 3)} < pixels


def test_batch_of_one_image_works(folder):
  config = make_config(dir=folder)
  config.batch_size = 1
  assert next(train_batches(config, open_source(config)))["image"].shape == (1, 16, 16, 3)


@pytest.mark.parametrize("shard_count", [1, 2, 4])
def test_evaluation_sees_every_image_once_in_order(folder, shard_count):
  config = make_config(dir=folder)
  source = open_source(config)  # 11 images, global batches of 4
  shards = [list(eval_batches(config, source, i, shard_count)) for i in range(shard_count)]
  assert {len(shard) for shard in shards} == {3}
  batches = [batch for step in zip(*shards, strict=True) for batch in step]
  valid = np.concatenate([b["valid"] for b in batches])
  files = [file for b in batches for file in b["file"]]
  images = np.concatenate([b["image"] for b in batches])
  assert valid.tolist() == [True] * 11 + [False]
  assert files == [source[i]["file"] for i in range(11)] + [""]
  assert not images[~valid].any()
  for i in range(11):
    view = transforms.center_crop(transforms.decode(source[i]["image"], ""), 16, PREPROCESSING)
    np.testing.assert_array_equal(images[i], view)


def test_evaluation_boxes_are_in_the_frame_of_the_crop(small_digits):
  config = make_config(name="digits")
  config.model.num_classes = 10
  source = read_digits(small_digits, "val")
  batch = next(eval_batches(config, source))
  expected = transforms.center_crop_box(source[1]["box"], (48, 48), 16, PREPROCESSING)
  np.testing.assert_array_equal(batch["box"][1], expected)
  assert (batch["box"].shape, batch["box"].dtype) == ((4, 4), np.float32)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image_reaches_the_caller_by_name(folder, workers):
  (folder / "train/b/0.JPG").write_bytes(b"broken")
  config = make_config(dir=folder, workers=workers)
  with pytest.raises(InputError, match=r"b/0\.JPG is not a readable image"):
    take(train_batches(config, open_source(config)), 6)


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
  source, bad = open_source(config), set()
  clean = open_source(make_config(dir=replaced))
  ours = take(train_batches(config, source, bad_images=bad), 8)
  assert_same_batches(ours, take(train_batches(config, clean), 8))
  assert {message.split()[0] for message in bad} == {
    str(folder / "train" / file) for file in ("a/1.png", "a/2.JPG")
  }
  warnings = capsys.readouterr().err
  assert warnings.count("skipped an unreadable image") == 2
  assert "(2, data.max_bad_images is 2)" in warnings

  val = open_source(config, "val")
  sources.check_images(val, 10, config.data.max_bad_images)
  batches = list(eval_batches(config, val))
  assert [*map(bool, np.concatenate([b["valid"] for b in batches]))] == [
    *(False, True, True, True),
    *(True, False, False, False),
  ]

  config.data.max_bad_images = 1
  with pytest.raises(InputError, match=r"a/[12]\.\w+ is not a readable image"):
    take(train_batches(config, source), 8)
  with pytest.raises(InputError, match="2 of 11 checked images cannot be used"):
    sources.check_images(source, 100, config.data.max_bad_images)


def test_the_limit_of_unreadable_images_is_over_all_batches(folder):
  for file in ("a/0.JPG", "b/0.JPG", "c/0.JPG"):
    (folder / "train" / file).write_bytes(b"broken")
  config = make_config(dir=folder, max_bad_images=2)
  with pytest.raises(InputError, match=r"too many unreadable images \(3, data.max_bad_images is 2"):
    take(train_batches(config, open_source(config)), 20)


def test_batch_size_and_classes_must_fit(folder):
  config = make_config(dir=folder)
  source = open_source(config)
  with pytest.raises(
    InputError, match="batch_size 4 is not divisible by the number of processes, 3"
  ):
    train_batches(config, source, shard_count=3)
  config.model.num_classes = 1000
  with pytest.raises(InputError, match=r"has 3 classes, but model\.num_classes is 1000"):
    eval_batches(config, source)
