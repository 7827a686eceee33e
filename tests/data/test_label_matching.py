"""Which image a name in a file of labels means, and what is no table of labels at all."""

import hanging
import pytest
from image_sets import encode, make_config, open_source
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.data import sources
from asvit_jax.data.sources.matching import Images, by_name, orders

PNG = encode(Image.new("L", (2, 2)))
CLASSES = ("train/cat", "train/dog")


def write(root, *names):
  for name in names:
    path = root / name
    (path if not path.suffix else path.parent).mkdir(parents=True, exist_ok=True)
    if path.suffix:
      path.write_bytes(PNG)
  return root


def opened(root, text, names, split="val", **data):
  """{path of an image: name of its class}, and what is said, of a split with a file of labels."""
  write(root, *names)
  (root / "labels").write_text(text)
  key = "train_labels" if split == "train" else "eval_labels"
  source = open_source(make_config(dir=root, **{key: root / "labels"}, **data), split)
  examples = [source[i] for i in range(len(source))]
  found = {e["file"].removeprefix(f"{root}/"): source.classes[e["label"]] for e in examples}
  return found, " ".join(sources.notes(source))


DOGS = ("val/dog/1.jpg", "val/dog/2.jpg")


@pytest.mark.parametrize(
  "text",
  [
    "file,label\ncat/1.jpg,cat\ncat/2.jpg,cat\n",
    "file,label\nval/cat/1.jpg,cat\nval/cat/2.jpg,cat\n",
    "train/cat/1.jpg cat\ntrain/cat/2.jpg cat\n",
    "C:\\data\\val\\cat\\1.jpg,cat\nC:\\data\\val\\cat\\2.jpg,cat\n",
  ],
)
def test_images_of_another_directory_are_other_images(tmp_path, text):
  with pytest.raises(InputError, match="none of the 2 files"):
    opened(tmp_path, text, CLASSES + DOGS)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("form", ["train/cat/{}.jpg", "/old/data/train/cat/{}.jpg", "cat/{}.jpg"])
def test_labels_of_the_training_images_are_not_those_of_validation(tmp_path, form, flat):
  names = ["train/cat/1.jpg", "train/cat/2.jpg", "train/dog"]
  names += ["val/1.jpg", "val/2.jpg"] if flat else DOGS
  with pytest.raises(InputError, match="none of the 2 files"):
    opened(tmp_path, "".join(f"{form.format(i)},cat\n" for i in (1, 2)), names)


def test_one_file_may_name_all_images_of_the_data_set(tmp_path):
  names = [f"{s}/{c}/{i}.jpg" for s in ("train", "val") for c in ("cat", "dog") for i in (1, 2)]
  text = "file,label\n" + "".join(f"{name},{name.split('/')[1]}\n" for name in names)
  for split in ("train", "val"):
    found, said = opened(tmp_path, text, names, split)
    assert found == {name: name.split("/")[1] for name in names if name.startswith(split)}
    assert "that are of other splits, and left out: 4" in said


def test_a_split_may_lie_deeper(tmp_path):
  write(tmp_path, "all/train/a.jpg", "all/val/a.jpg", "all/val/b.jpg")
  text = "all/train/a.jpg,cat\nall/val/a.jpg,dog\nall/b.jpg,cat\n"
  found, said = opened(tmp_path, text, (), eval_split="all/val", split="all/val")
  assert found == {"all/val/a.jpg": "dog", "all/val/b.jpg": "cat"}
  assert "left out: 1 (all/train/a.jpg)" in said


@pytest.mark.parametrize(
  ("wanted", "expected"),
  [
    (["C:\\data\\val\\a\\x.jpg", "b/y.jpg"], ["a/x.jpg", "b/y.jpg"]),
    (["x.jpg", "y"], ["a/x.jpg", "b/y.jpg"]),  # by file alone
    (["a/x", "/else/where/val/b/y"], ["a/x.jpg", "b/y.jpg"]),
    (["same.jpg", "a/same.jpg"], [None, "a/same.jpg"]),  # of which there are two
    (["flat.jpg", "c/flat.jpg"], ["flat.jpg", None]),  # which is taken
    (["in/c/z.jpg", "c/z.jpg", "q/z.jpg"], [None, "deep/c/z.jpg", None]),
    (["A/X.JPG", "Y.jpg"], ["a/x.jpg", "b/y.jpg"]),
    (["u.jpg", "U.JPG"], ["u.jpg", None]),  # two differ in nothing else
    (["train/x.jpg", "../train/a/x.jpg", "train/val/a/x.jpg"], [None, None, "a/x.jpg"]),
  ],
)
def test_one_path_ends_in_the_other(tmp_path, wanted, expected):
  names = ["U.jpg", "a/same.jpg", "a/x.jpg", "b/same.jpg", "b/y.jpg", "deep/c/z.jpg", "flat.jpg"]
  names = sorted([*names, "u.jpg"])
  found = by_name(wanted, Images(names, str(tmp_path / "val"), frozenset(["train"])))
  assert [names[i] if i >= 0 else None for i in found.numbers] == expected


def test_names_of_many_directories_take_no_time(tmp_path):
  with hanging.never():
    wanted = ["a/" * 200_000 + "x.jpg", "/" * 400_000, "x.jpg"]
    found = by_name(wanted, Images(["b/x.jpg"], str(tmp_path), frozenset(["train"])))
    assert found.numbers.tolist() == [-1, -1, 0]


def test_letters_may_be_large_or_small_and_it_is_said(tmp_path):
  text = "file,label\na.jpg,cat\nb.jpg,dog\n"
  found, said = opened(tmp_path, text, (*CLASSES, "val/a.JPG", "val/B.jpg"))
  assert found == {"val/a.JPG": "cat", "val/B.jpg": "dog"}
  assert "other small and large letters than on the disk: 2 (a.jpg, b.jpg)" in said


@pytest.mark.parametrize("text", ["cat\ndog\nowl\n", "label\ncat\ndog\nowl\n"])
def test_a_class_a_line_needs_images_in_one_order(tmp_path, text):
  names = ("val/1.jpg", "val/2.jpg", "val/10.png")
  with pytest.raises(
    InputError, match=r"text 1\.jpg, 10\.png, 2\.jpg, by their numbers 1\.jpg, 2\.jpg, 10\.png"
  ):
    opened(tmp_path, text, names)
  padded = tmp_path / "padded"
  found, _ = opened(padded, text, [f"val/{i:02}.jpg" for i in (1, 2, 10)])
  assert list(found.values()) == ["cat", "dog", "owl"]


def test_numbers_in_names_that_differ_in_more_are_no_order():
  assert orders(["0a91.jpg", "0a9f.jpg", "12b3.jpg", "1a.jpg", "a.jpg", "a1.jpg"]) is None
  assert orders(["a/1.jpg", "a/2.jpg", "b/10.jpg", "b/11.jpg"]) is None
  assert orders(["Img10.jpg", "img2.jpg", "img9.jpg"]) is not None


NAMES = ("val/a.jpg", "val/b.jpg", "val/my c.jpg")
WORDS = {"val/a.jpg": "golden retriever", "val/b.jpg": "cat", "val/my c.jpg": "great white shark"}


@pytest.mark.parametrize(
  "text",
  [
    "a.jpg golden retriever\nb.jpg cat\nmy c.jpg great white shark\n",
    "file label\na.jpg golden retriever\nb.jpg  cat\n'my c.jpg' great white shark\n",
    "sep=,\nfile,label\na.jpg,golden retriever\nb.jpg,cat\nmy c.jpg,great white shark\n",
  ],
)
def test_names_and_classes_may_have_several_words(tmp_path, text):
  assert opened(tmp_path, text, NAMES) == (WORDS, "")


def test_names_without_suffixes_may_have_classes_of_several_words(tmp_path):
  found, said = opened(tmp_path, "a golden retriever\nb cat\n", NAMES[:2])
  assert found == {name: WORDS[name] for name in NAMES[:2]}
  assert not said


@pytest.mark.parametrize(
  ("text", "match"),
  [
    ("a.jpg|cat\nb.jpg|dog\n", r"has '\|' after the name of an image in row 1"),
    ("|a.jpg|cat|\n|b.jpg|dog|\n", r"has '\|' after the name"),
    ("a.jpg:cat\nb.jpg:dog\n", "has ':' after the name of an image in row 1"),
    ("a.jpg cat\nb.jpg,dog\n", "has ',' after the name of an image in row 2"),
    ("a.jpg\nb.jpg\n", "no columns, and row 1 is not a class: a.jpg"),
    ('{"file_name": "a.jpg", "label": 0}\n{"file_name": "b.jpg", "label": 1}\n', "JSON Lines"),
    ('{"a.jpg": "cat",\n"b.jpg": "dog"}\n', "JSON Lines"),
    ("[\n]\n", "JSON Lines"),
    ("<a>\n<b>cat</b>\n", "JSON, JSON Lines or XML"),
    ("cat\n<b>dog</b>\n", "row 2 is not a class"),
    ("a.jpg 1 2 3 4\nb.jpg 0 2 3 4\n", "none of the 2 files"),
    ("file,label\na.jpg,cat\0\nb.jpg,dog\n", "zero bytes"),
  ],
)
def test_other_tables_are_not_a_class_a_line(tmp_path, text, match):
  with pytest.raises(InputError, match=match):
    opened(tmp_path, text, NAMES[:2])


@pytest.mark.parametrize(
  "heading",
  ["ClassId", "category_id", "label_id", "class_label", "Class Name", "diagnosis", "Species", "dx"],
)
def test_headings_are_compared_by_their_letters(tmp_path, heading):
  text = f"Width;Roi.X1;{heading};Path\n53;6;0;Test/a.jpg\n42;5;1;Test/b.jpg\n"
  found, _ = opened(tmp_path, text, NAMES[:2])
  assert found == {"val/a.jpg": "0", "val/b.jpg": "1"}


def test_labels_with_gaps_and_no_0_do_not_make_classes(tmp_path):
  with pytest.raises(InputError, match="labels from 1 to 4, and no 0"):
    opened(tmp_path, "a.jpg 1\nb.jpg 4\n", NAMES[:2])
