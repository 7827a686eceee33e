"""Conversion from tfrecord, TFDS's default format, to array_record, which has random access.

Needs no network, TensorFlow or Beam. Rerun an interrupted conversion and it resumes.
"""

import concurrent.futures
import json
import os
import pathlib

import grain
from tensorflow_datasets.core import file_adapters

from asvit_jax.core import schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import Progress, log
from asvit_jax.data.sources.tfds import prepared_builder


def convert(name, data_dir, out):
  """Writes a data set again as array_record: the same examples, in the same order and shards.

  Every shard is written atomically. `dataset_info.json`, without which TFDS does not find the data
  set, is written last.

  Args:
    name: NAME[/CONFIG][:VERSION]; without a version, the newest.
    data_dir: TFDS data directory that contains it; None for TFDS's default.
    out: TFDS data directory for the copy; must differ from `data_dir`.

  Returns:
    Dictionary: `directory` of the copy, `splits` {name: examples}, `shards` and `gigabytes` read.

  Raises:
    InputError: there is nothing to convert, a shard is damaged, or `out` cannot be written.
  """
  builder = prepared_builder(name, data_dir)
  source = pathlib.Path(builder.data_path)
  what, info = source / "dataset_info.json", schema.table({"fileFormat": schema.text(100)})
  info = schema.loads(storage.read(what), info, str(what), "prepare the data set again")
  stored = info.get("fileFormat", "tfrecord")  # older versions of TFDS omit the field
  if stored != "tfrecord":
    raise InputError(f"{source} is stored as {stored}: expected tfrecord")
  relative = source.relative_to(_root(source, info))
  target = storage.on_disk(out, "--out", "convert to one, then copy") / relative
  if target.resolve() == source.resolve():
    raise InputError(f"--out {out} is where the data set is: give another directory")
  below = [str(directory) for directory in (relative, *relative.parents[:-1])]
  storage.check_writable(out, "--out", directories=below)
  shards = [
    (pathlib.Path(path), target / pathlib.Path(path).name.replace(".tfrecord", ".array_record"), n)
    for split in builder.info.splits.values()
    for path, n in zip(split.filepaths, split.shard_lengths, strict=True)
  ]
  missing = [str(path) for path, _, _ in shards if not path.is_file()]
  if missing:
    raise InputError(f"{len(missing)} of {len(shards)} shards are missing, first {missing[0]}")
  try:
    target.mkdir(parents=True, exist_ok=True)
    _convert_shards(shards)
    for file in source.iterdir():  # features and names of classes
      if file.suffix in (".json", ".txt") and file.name != "dataset_info.json":
        storage.write(target / file.name, file.read_bytes())
    info["fileFormat"] = "array_record"
    storage.write(target / "dataset_info.json", json.dumps(info, indent=2).encode())
  except OSError as error:
    raise InputError(
      f"cannot write to {target} ({error}): make room, or give another --out, and run it again"
    ) from error
  return {
    "directory": str(target),
    "splits": {split.name: split.num_examples for split in builder.info.splits.values()},
    "shards": len(shards),
    "gigabytes": sum(path.stat().st_size for path, _, _ in shards) / 1e9,
  }


def _root(source, info):
  """The data directory that contains …/NAME[/CONFIG]/VERSION."""
  return source.parents[2 if info.get("configName") else 1]


def _convert_shards(shards):
  todo = [shard for shard in shards if not shard[1].exists()]
  if len(todo) < len(shards):
    log(f"{len(shards) - len(todo)} of {len(shards)} shards are there already")
  progress = Progress("converting, shards", len(todo))
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    converted = [pool.submit(_convert_shard, *shard) for shard in todo]
    try:
      for done, future in enumerate(concurrent.futures.as_completed(converted), 1):
        future.result()
        progress.update(done)
    finally:  # after an error or Ctrl-C, finish the shards in progress and stop
      pool.shutdown(cancel_futures=True)


def _convert_shard(source, target, examples):
  records = enumerate(grain.experimental.TFRecordIterDataset(str(source)))
  counted = 0

  def counting():
    nonlocal counted
    for record in records:
      counted += 1
      yield record

  with storage.replacing(target) as partial:
    try:
      file_adapters.ArrayRecordFileAdapter.write_examples(partial, counting())
    except ValueError as error:  # raised by Grain for a truncated record
      raise InputError(f"{source} is damaged ({error}): bring back a good copy of it") from error
    if counted != examples:
      raise InputError(
        f"{source} has {counted} examples, its data set says {examples}: bring back a good copy of "
        "it"
      )
