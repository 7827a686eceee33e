"""Images without a directory a class, and the files that say which each is of."""

import numpy as np
import pytest
from image_sets import encode, make_config, open_source
from PIL import Image
from scipy.io import savemat

from asvit_jax.core.errors import InputError
from asvit_jax.data import sources

NAMES = [f"ILSVRC2012_val_{i:08d}" for i in range(1, 5)]
SYNSETS = ("n01", "n02", "n03")
EXPECTED = dict(zip(NAMES, (2, 0, 0, 1), strict=True))


@pytest.fixture
def flat(tmp_path):
  """Training images by class, and four validation images that lie flat."""
  image = encode(Image.new("RGB", (4, 4)), "JPEG")
  for name in SYNSETS:
    (tmp_path / "train" / name).mkdir(parents=True)
    (tmp_path / "train" / name / "0.JPEG").write_bytes(image)
  (tmp_path / "val").mkdir()
  for name in NAMES:
    (tmp_path / "val" / f"{name}.JPEG").write_bytes(image)
  return tmp_path


def opened(root, text, **data):
  file = root / "labels"
  file.write_text(text)
  return open_source(make_config(dir=root, eval_labels=file, **data), "val")


def labels(source):
  examples = [source[i] for i in range(len(source))]
  return {
    example["file"].split("/")[-1].removesuffix(".JPEG"): example["label"] for example in examples
  }


def lines(separator, suffix=".JPEG", directory="", values=(2, 0, 0, 1)):
  return "".join(
    f"{directory}{n}{suffix}{separator}{v}\n" for n, v in zip(NAMES, values, strict=True)
  )


SYNSET_OF = ("n03", "n01", "n01", "n02")
FILES = {
  "caffe": lines(" "),
  "in another order": "".join(reversed(lines(" ", directory="val/").splitlines(keepends=True))),
  "csv": "filename,label\n" + lines(",", values=SYNSET_OF),
  "columns": "class,width,path\n"
  + "".join(f"{label},4,./{name}.JPEG\n" for name, label in EXPECTED.items()),
  "kaggle": "ImageId,PredictionString\n"
  + "".join(f"{n},{s} 1 2 3 4 {s} 5 6 7 8\n" for n, s in zip(NAMES, SYNSET_OF, strict=True)),
  "by number": "2\n0\n0\n1\n",
  "by synset": "\ufeffn03\r\nn01\r\nn01\r\nn02\r\n",
}


@pytest.mark.parametrize("kind", FILES)
def test_flat_images_get_the_classes_of_the_training_images(flat, kind):
  source = opened(flat, FILES[kind])
  assert labels(source) == EXPECTED
  assert source.classes == SYNSETS
  assert source.labels.tolist() == [source[i]["label"] for i in range(4)]
  assert sources.notes(source) == []


def test_labels_may_be_names_of_the_file_of_classes(flat):
  (flat / "classes.txt").write_text("n01\ta tench\nn02\ta shark\nn03\ta ray\n")
  text = lines("\t", values=("a ray", "a tench", "a tench", "a shark"))
  assert labels(opened(flat, text, classes=flat / "classes.txt")) == EXPECTED


def test_imagenets_ground_truth_needs_and_uses_the_devkits_own_numbers(flat):
  with pytest.raises(InputError, match=r"numbers from 1.*meta\.mat"):
    opened(flat, "1\n3\n3\n2\n")
  types = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
  rows = [
    (1, "n03", "ray", 0),
    (2, "n02", "shark", 0),
    (3, "n01", "tench", 0),
    (4, "n9", "fish", 3),
  ]
  savemat(flat / "meta.mat", {"synsets": np.array(rows, types)})
  assert labels(opened(flat, "1\n3\n3\n2\n")) == EXPECTED
  (flat / "val" / f"{NAMES[1]}.JPEG").rename(flat / "other.JPEG")
  three = opened(flat, "1\n3\n3\n2\n")  # each by the number in its name
  assert labels(three) == {name: EXPECTED[name] for name in NAMES if name != NAMES[1]}
  assert "that are not there: 1" in sources.notes(three)[0]
  (flat / "other.JPEG").rename(flat / "val" / f"{NAMES[1]}.JPEG")
  alone = make_config(dir=flat, eval_labels=flat / "labels", train_split="none")
  assert labels(open_source(alone, "val")) == EXPECTED
  with pytest.raises(InputError, match=r"has the number 4, and .* 3 classes"):
    opened(flat, "1\n3\n3\n4\n")


def test_training_images_may_be_labelled_too_and_say_the_classes(flat):
  (flat / "train.csv").write_text(
    "file,label\n" + "".join(f"{s}/0.JPEG,c{s[2]}\n" for s in SYNSETS)
  )
  config = make_config(dir=flat, train_labels=flat / "train.csv")
  source = open_source(config)
  assert (source.classes, source.labels.tolist()) == (("c1", "c2", "c3"), [0, 1, 2])
  assert sources.class_names(config.data) == ["c1", "c2", "c3"]


def test_what_is_only_on_the_disk_or_in_the_file_is_said(flat, capsys):
  source = opened(flat, f"{NAMES[0]}.JPEG 1\nmissing.JPEG 2\n")
  assert labels(source) == {NAMES[0]: 1}
  said = capsys.readouterr().err
  assert "that are not there: 1 (missing.JPEG)" in said
  assert f"left out of {flat / 'val'}, images not in data.eval_labels" in said
  assert f": 3 ({NAMES[1]}.JPEG" in said
  assert f"classes without images in {flat / 'val'}: 2 (n01, n03)" in said


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "is empty"),
    (None, "cannot be read"),
    (lines(" ", values=(0, 0, 0, 3)), "labels from 0 to 3, and there are 3 classes"),
    (lines(" ", values=("n01", "n02", "n03", "n04")), "not among the 3 of the data: n04"),
    ("x.JPEG 0\n", "none of the 1 files"),
    (lines(" ") + f"val/{NAMES[0]}.JPEG 1\n", "names 1 images more than once"),
    ("0\n1\n", "has 2 labels, and .* 4 images"),
    (lines(",a,"), "has 3 columns"),
    (lines(",") + "a,b,c\n", "row 5 has 3 cells"),
  ],
)
def test_a_bad_file_of_labels_is_explained(flat, text, message):
  with pytest.raises(InputError, match=message):
    if text is None:
      open_source(make_config(dir=flat, eval_labels=flat / "none"), "val")
    opened(flat, text)


def test_flat_images_without_labels_say_what_to_give(flat):
  with pytest.raises(InputError, match=r"4 images and no directories of classes.*eval_labels"):
    open_source(make_config(dir=flat), "val")
