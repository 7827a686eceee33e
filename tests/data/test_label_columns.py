"""Files of labels as people have them: which column is which, and which numbers are labels."""

import hanging
import pytest
from image_sets import encode, make_config, open_source
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.data import files, sources

PNG = encode(Image.new("L", (2, 2)))
FILES = tuple(f"{i}.png" for i in range(4))
BACKWARDS = {"3.png": 0, "2.png": 1, "1.png": 2, "0.png": 3}


def opened(root, text, split="val", names=FILES, train=("a", "b", "c", "d"), **data):
  """The source of flat images that a file of labels is about."""
  for name in train if split == "val" else ():
    (root / "train" / name).mkdir(parents=True)
  (root / split).mkdir(exist_ok=True)
  for name in names:
    (root / split / name).write_bytes(PNG)
  (root / "labels").write_bytes(text if isinstance(text, bytes) else text.encode())
  key = {"val": "eval_labels", "train": "train_labels"}[split]
  return open_source(make_config(dir=root, **{key: root / "labels"}, **data), split)


def labels(source):
  examples = [source[i] for i in range(len(source))]
  return {example["file"].rpartition("/")[2]: example["label"] for example in examples}


def table(heading, *rows, separator=","):
  return "".join(separator.join(map(str, row)) + "\n" for row in (heading, *rows) if row)


ROWS = [(i, f"{3 - i}.png", "abcd"[i]) for i in range(4)]
COLUMNS = {
  "id first": table(("id", "filename", "label"), *ROWS),
  "id second": table(("filename", "id", "label"), *((f, i, c) for i, f, c in ROWS)),
  "a number of rows": table(("", "image", "breed"), *ROWS),
  "an unknown heading": table(("id", "photo", "label"), *ROWS),
  "no known heading": table(("photo", "species"), *(row[1:] for row in ROWS)),
  "labels first": table((), *((c, f) for _, f, c in ROWS), separator=" "),
  "with stems": table(("label", "id"), *((c, f[0]) for _, f, c in ROWS)),
  "names and numbers": table(
    ("file", "class_id", "class_name"), *((f, 7 - i, c) for i, f, c in ROWS)
  ),
  "other names": table(("id", "filename", "label"), *((3 - i, f"{i}x.png", c) for i, _, c in ROWS)),
  "two of the same": table(("file", "path", "label"), *((f, f"./{f}", c) for _, f, c in ROWS)),
  "floats": table(("file", "label"), *((f, f"{i}.0") for i, f, _ in ROWS)),
  "powers": table(("file", "label"), *((f, f"{i}.0e+00") for i, f, _ in ROWS)),
  "zeros before": table(("file", "label"), *((f, f"0{i}") for i, f, _ in ROWS)),
  "quoted": table(("file", "label"), *((f'"{f}"', f'"{c}"') for _, f, c in ROWS)),
  "semicolons": table(("file", "label"), *(row[1:] for row in ROWS), separator=";"),
  "tabs": "\ufeff" + table(("file", "label"), *(r[1:] for r in ROWS), separator="\t"),
  "Windows": table(("file", "label"), *((f"C:\\data\\{f}", c) for _, f, c in ROWS)).replace(
    "\n", "\r\n"
  ),
  "quotes and spaces": table((), *((f'"{f}"', c) for _, f, c in ROWS), separator=" "),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_the_column_of_the_files_is_the_one_that_names_them(tmp_path, kind):
  assert labels(opened(tmp_path, COLUMNS[kind])) == BACKWARDS


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_are_listed_once_to_read_labels_and_once_to_open_them(tmp_path, split, monkeypatch):
  """Where both the spaces in a file and its headings may mean several things."""
  text = "name id\nmy 0.png a\nmy 1.png b\nmy 2.png b\n"
  scanned, scan = [], files.scan
  monkeypatch.setattr(files, "scan", lambda *args: scanned.append(args) or scan(*args))
  names = [f"my {i}.png" for i in range(3)]
  found = opened(tmp_path, text, split, names)
  assert labels(found) == {"my 0.png": 0, "my 1.png": 1, "my 2.png": 1}
  assert len(scanned) == 2


def test_a_class_may_be_called_as_a_heading_is(tmp_path):
  text = table((), *(("0.png", "name"), ("1.png", "b"), ("2.png", "c"), ("3.png", "d")))
  source = opened(tmp_path, text, train=("b", "c", "d", "name"))
  assert labels(source) == {"0.png": 3, "1.png": 0, "2.png": 1, "3.png": 2}


@pytest.mark.parametrize(
  ("text", "match"),
  [
    (
      table(("id", "image", "label"), *((i, 3 - i, c) for i, _, c in ROWS)),
      "columns 'i.*' and 'i.*' both name images of .*, but different ones",
    ),
    (
      table(("id", "picture", "label"), *((i, 3 - i, c) for i, _, c in ROWS)),
      "columns '.*' and '.*' both name images of .*, but different ones",
    ),
    (table(("id", "filename"), *(row[:2] for row in ROWS)), "both identify the image"),
    (
      table(("file", "category", "label"), *((f, "x", c) for _, f, c in ROWS)),
      "'category' and 'label' both look like classes, and contradict each other",
    ),
    (table(("file", "label"), ("0.png", ""), ("1.png", "a")), "no class in row 2, and in 1 rows"),
    (table(("file", "label"), ("", "a"), ("1.png", "a")), "no file in row 2"),
    (table(("ImageId", "PredictionString"), ("0", ""), ("1", "a 1 2 3 4")), "no class in row 2"),
    (table(("file", "label")), "only headings"),
    (table(("file", "label"), ("0.png", "a"), ("0.png", "b")), "names 1 images more than once"),
    (table(("file", "label"), ("0.png", -1), ("1.png", 0)), "labels from -1 to 0"),
    (table(("file", "label"), ("0.png", 0.5), ("1.png", 0)), "not whole numbers: 0.5"),
    (table(("file", "label"), ("0.png", "9" * 5000)), "a class of 5,000 characters"),
    (table(("file", "label"), ("0.png", "1" * 13)), "labels from 1111111111111 to"),
    ('file,label\n"' + "x" * 200_000 + '",1\n', "is not a table"),
    (b"file,label\n\xff.png,1\n", "cannot be read"),
    (table(("file", "label"), *((f"{i}.png", i + 1) for i in range(3))), "from 1 to 3, and no 0"),
  ],
)
def test_what_is_ambiguous_or_no_label_is_refused(tmp_path, text, match):
  with pytest.raises(InputError, match=match):
    opened(tmp_path, text)


def test_classes_that_are_other_numbers_than_the_labels_are_not_counted_off(tmp_path):
  text = table(("file", "label"), ("0.png", 0), ("1.png", 1))
  with pytest.raises(InputError, match="the classes are other numbers: 1, 2, 3"):
    opened(tmp_path, text, train=("1", "2", "3"))


def test_labels_count_in_the_order_of_numbers_however_they_are_written(tmp_path):
  names = [f"{i}.png" for i in range(11)]
  text = table(("file", "label"), *((name, f"{i}.0") for i, name in enumerate(names)))
  source = opened(tmp_path, text, "train", names)
  assert labels(source) == {name: i for i, name in enumerate(names)}
  assert source.classes == tuple(map(str, range(11)))


@pytest.mark.parametrize(
  ("numbers", "match"),
  [
    ((20240101, 20240102), "labels up to 20240102, for 2 images"),
    ((1717171717171, 0), "labels up to 1717171717171, for 2 images"),
    (("1e99", 0), "labels up to 1e99"),
    (("9" * 30, 0), "labels up to 9999"),
    ((1, 2), "from 1 to 2, and no 0"),
    ((-1, 0), "has the label -1"),
    ((0.5, 1.5), "not whole numbers: 0.5, 1.5"),
  ],
)
def test_labels_are_counted_before_classes_are_made(tmp_path, numbers, match):
  text = table(("file", "label"), *zip(("0.png", "1.png"), numbers, strict=True))
  with hanging.never(), pytest.raises(InputError, match=match):
    opened(tmp_path, text, "train")


def test_some_of_the_classes_may_lack_images(tmp_path):
  source = opened(tmp_path, table(("file", "label"), ("0.png", 0), ("1.png", 5)), "train")
  assert labels(source) == {"0.png": 0, "1.png": 5}
  assert len(source.classes) == 6
  assert "classes without images" in " ".join(sources.notes(source))


def test_some_of_known_classes_may_be_left_out(tmp_path):
  source = opened(tmp_path, table(("file", "label"), ("0.png", 1), ("1.png", 3)))
  assert labels(source) == {"0.png": 1, "1.png": 3}


def test_a_file_of_classes_says_what_numbers_from_1_mean(tmp_path):
  (tmp_path / "classes").write_text("1\n2\n3\n")
  text = table(("file", "label"), *((f"{i}.png", i + 1) for i in range(3)))
  source = opened(tmp_path, text, classes=tmp_path / "classes")
  assert labels(source) == {"0.png": 0, "1.png": 1, "2.png": 2}
