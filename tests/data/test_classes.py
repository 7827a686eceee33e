"""Which classes there are and in which order: of directories, and of files of every common kind."""

import json
import unicodedata

import pytest
from image_sets import encode, make_config, open_source
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.data import loader, sources


def write(root, *directories):
  """An image in each directory."""
  image = encode(Image.new("RGB", (4, 4)))
  for directory in directories:
    (root / directory).mkdir(parents=True, exist_ok=True)
    (root / directory / "0.png").write_bytes(image)
  return root


def labels(source):
  """{directory: label}."""
  examples = [source[i] for i in range(len(source))]
  return {example["file"].split("/")[-2]: example["label"] for example in examples}


def test_directories_of_systems_and_tools_are_no_classes(tmp_path, capsys):
  system = (".ipynb_checkpoints", "lost+found", "__MACOSX", "@eaDir", "System Volume Information")
  write(tmp_path / "train", "bee", "ant", *system)
  config = make_config(dir=tmp_path)
  source = open_source(config)
  assert (source.classes, len(source)) == (("ant", "bee"), 2)
  assert sources.class_names(config.data) == ["ant", "bee"]
  said = capsys.readouterr().err
  assert all(f"1 {name}/" in said for name in system)


def test_directories_that_are_numbers_are_in_their_order(tmp_path, capsys):
  write(tmp_path / "train", *map(str, range(12)))
  config = make_config(dir=tmp_path)
  source = open_source(config)
  assert labels(source) == {str(i): i for i in range(12)}
  assert sources.class_names(config.data) == list(source.classes) == [str(i) for i in range(12)]
  assert "are numbers, and sorted as numbers: 0, 1, 2, 3, 4 and 7 more" in capsys.readouterr().err
  write(tmp_path / "train", "x")  # one that is none
  assert open_source(config).classes[:4] == ("0", "1", "10", "11")


BIRDS = ("ant", "golden eagle", "golden retriever")
FILES = {
  "spaces": ("ant\ngolden retriever\ngolden eagle\n", BIRDS),
  "windows": ("\ufeffant\r\ngolden retriever\r\ngolden eagle\r\n", BIRDS),
  "tabs": ("ant\tthe ant\ngolden retriever\ta dog\ngolden eagle\ta bird\n", BIRDS),
  "class_to_idx": ("{'golden eagle': 2, 'ant': 0, 'golden retriever': 1}", BIRDS),
  "class_to_idx in JSON": ('{"golden eagle": 2, "ant": 0, "golden retriever": 1}', BIRDS),
  "id2label": ('{"id2label": {"0": "ant", "2": "golden eagle", "1": "golden retriever"}}', BIRDS),
  "network.json": ('{"classes": ["ant", "golden retriever", "golden eagle"]}', BIRDS),
  "labels first": ("2 golden eagle\n0 ant\n1 golden retriever\n", BIRDS),
  "labels last": ("class,label\ngolden eagle,2\nant,0\ngolden retriever,1\n", BIRDS),
  "words": ("a an ant\nr golden retriever\ne golden eagle\n", ("a", "e", "r")),
  "index": ('{"0": ["a", "ant"], "1": ["r", "dog"], "2": ["e", "eagle"]}', ("a", "e", "r")),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_of_classes_of_every_common_kind(tmp_path, kind):
  text, (first, last, middle) = FILES[kind]
  write(tmp_path / "train", first, middle, last)
  (tmp_path / "classes").write_bytes(text.encode())
  config = make_config(dir=tmp_path, classes=tmp_path / "classes")
  assert labels(open_source(config)) == {first: 0, middle: 1, last: 2}
  names = {
    "tabs": ["the ant", "a dog", "a bird"],
    "words": ["an ant", "golden retriever", "golden eagle"],
    "index": ["ant", "dog", "eagle"],
  }
  expected = names.get(kind, [first, middle, last])
  assert sources.class_names(config.data) == expected
  config.data.dir = ""  # without images names must not be cut
  found = sources.class_names(config.data)
  assert found == (text.splitlines() if kind == "words" else expected)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{'a': 0, 'b': 2}", "each label from 0 once"),
    ("{'a': 0, 'b': 0}", "each label from 0 once"),
    ("{'a': 0", "neither JSON nor a Python dictionary"),
    ("[]", "has no classes"),
    ('[["a", "b", "c"]]', "is not a class"),
  ],
)
def test_a_bad_object_of_classes_is_explained(tmp_path, text, message):
  (tmp_path / "classes.json").write_text(text)
  with pytest.raises(InputError, match=message):
    sources.class_names(make_config(classes=tmp_path / "classes.json").data)


def test_names_alone_may_be_there_twice(tmp_path):
  """As the crane, a bird and a machine, of ImageNet's; directories may not."""
  (tmp_path / "classes.txt").write_text("crane\ngreat white shark\ncrane\n")
  config = make_config(classes=tmp_path / "classes.txt")
  assert sources.class_names(config.data) == ["crane", "great white shark", "crane"]


def test_wide_text_and_other_forms_of_accents_are_the_same_classes(tmp_path):
  """Notepad writes UTF-16, and macOS names of directories with their accents apart."""
  name = "brûlée"
  write(tmp_path / "train", unicodedata.normalize("NFD", name), "ant")
  (tmp_path / "classes.txt").write_bytes(f"{name}\nant\n".encode("utf-16"))
  config = make_config(dir=tmp_path, classes=tmp_path / "classes.txt")
  assert list(labels(open_source(config)).values()) == [0, 1]


def test_another_number_of_classes_than_the_networks_is_refused_with_what_is_empty(tmp_path):
  write(tmp_path / "train", "ant", "bee", "cat")
  (tmp_path / "train" / "logs").mkdir()
  with pytest.raises(InputError, match=r"has 4 classes.*is 3.*without images in .*: 1 \(logs\)"):
    loader.check_classes(make_config(), open_source(make_config(dir=tmp_path)))


def test_the_same_classes_in_another_order_are_not_taken_for_the_networks(tmp_path):
  write(tmp_path / "train", "ant", "bee")
  config = make_config(dir=tmp_path)
  source = open_source(config)
  for known in (None, ("ant", "bee"), ("Ameise", "Biene")):
    sources.check_order(known, config.data, source)
  with pytest.raises(InputError, match=r"label 0 is 'ant' in the data and 'bee' in the network"):
    sources.check_order(("bee", "ant"), config.data, source)
  (tmp_path / "network.json").write_text(json.dumps({"classes": ["bee", "ant"]}))
  config.data.classes = str(tmp_path / "network.json")
  sources.check_order(("bee", "ant"), config.data, open_source(config))
