"""tfrecord to array_record: the same examples, whatever interrupts it."""

import json
from pathlib import Path

import processes
import pytest
from array_record.python import array_record_data_source
from image_sets import make_config, open_source
from tensorboard.summary.writer.record_writer import RecordWriter

from asvit_jax.core.errors import InputError
from asvit_jax.data import digits, tfrecord

NAME = "translated_cluttered_digits"


@pytest.fixture
def tfrecords(tmp_path):
  """A TFDS data directory with the digits as tfrecord, written by TensorBoard."""
  data = tmp_path / "tfrecord"
  builder = digits.prepare(data, train_images=30, val_images=10)
  directory = Path(builder.data_path)
  for file in directory.glob("*.array_record*"):
    with open(str(file).replace("array_record", "tfrecord"), "wb") as records:
      writer = RecordWriter(records)
      stored = array_record_data_source.ArrayRecordDataSource([str(file)])
      for record in stored.__getitems__(range(len(stored))):
        writer.write(record)
      writer.flush()
    file.unlink()
  info = json.loads((directory / "dataset_info.json").read_text())
  del info["fileFormat"]  # as TFDS once wrote it
  (directory / "dataset_info.json").write_text(json.dumps(info))
  return directory


def read(data_dir, split):
  source = open_source(make_config(name=f"tfds:{NAME}", dir=data_dir), split)
  return [{**source[i], "box": source[i]["box"].tolist()} for i in range(len(source))]


def test_the_command_converts_every_example_without_tensorflow(tfrecords, tmp_path):
  with pytest.raises(
    InputError, match=rf"stored as tfrecord.*asvit_jax\.data\.convert --name {NAME}$"
  ):
    read(tmp_path / "tfrecord", "train")
  script = (
    "import runpy, sys\n"
    "sys.argv[0] = 'convert'\n"
    "try:\n  runpy.run_module('asvit_jax.data.convert', run_name='__main__')\n"
    "finally:\n  assert 'tensorflow' not in sys.modules and 'apache_beam' not in sys.modules\n"
  )
  flags = ["--name", NAME, "--data-dir", tmp_path / "tfrecord", "--out", tmp_path / "out"]
  done = processes.run("-c", script, *flags)
  assert done.returncode == 0, done.stderr
  result = json.loads(done.stdout.splitlines()[-1])
  assert result["splits"] == {"train": 30, "val": 10}
  assert "converting, shards" in done.stderr
  digits.prepare(tmp_path / "again", train_images=30, val_images=10)
  for split in ("train", "val"):
    assert read(tmp_path / "out", split) == read(tmp_path / "again", split)


def test_an_interrupted_conversion_goes_on_and_is_not_found_before_its_end(
  tfrecords, tmp_path, monkeypatch, capsys
):
  convert_shard, out = tfrecord._convert_shard, tmp_path / "out"

  def stopping(source, target, examples):
    if "val" in source.name:
      raise KeyboardInterrupt
    convert_shard(source, target, examples)

  with monkeypatch.context() as patched:
    patched.setattr(tfrecord, "_convert_shard", stopping)
    with pytest.raises(KeyboardInterrupt):
      tfrecord.convert(NAME, tmp_path / "tfrecord", out)
  with pytest.raises(InputError, match="is not prepared under"):
    read(out, "train")
  tfrecord.convert(NAME, tmp_path / "tfrecord", out)
  assert "1 of 2 shards are there already" in capsys.readouterr().err
  assert len(read(out, "val")) == 10


def test_damage_is_named_and_never_converted(tfrecords, tmp_path):
  shard = next(tfrecords.glob("*val.tfrecord*"))
  whole = shard.read_bytes()
  shard.write_bytes(whole[:-100])
  with pytest.raises(InputError, match=r"val\.tfrecord.* is damaged"):
    tfrecord.convert(NAME, tmp_path / "tfrecord", tmp_path / "out")
  length = int.from_bytes(whole[:8], "little")
  shard.write_bytes(whole[length + 16 :])  # without its first example
  with pytest.raises(InputError, match=r"has 9 examples, its data set says 10"):
    tfrecord.convert(NAME, tmp_path / "tfrecord", tmp_path / "out")
  shard.unlink()
  with pytest.raises(InputError, match=r"1 of 2 shards are missing, first .*val"):
    tfrecord.convert(NAME, tmp_path / "tfrecord", tmp_path / "out")
  assert not list((tmp_path / "out").rglob("*val.array_record-*"))  # nor a part of it


def test_only_tfrecords_and_only_elsewhere(tfrecords, tmp_path):
  with pytest.raises(InputError, match="is where the data set is"):
    tfrecord.convert(NAME, tmp_path / "tfrecord", tmp_path / "tfrecord")
  digits.prepare(tmp_path / "array_record", train_images=30, val_images=10)
  with pytest.raises(InputError, match="is stored as array_record: expected tfrecord"):
    tfrecord.convert(NAME, tmp_path / "array_record", tmp_path / "out")
  with pytest.raises(InputError, match="is not prepared under"):
    tfrecord.convert("imagenet2012", tmp_path / "tfrecord", tmp_path / "out")
