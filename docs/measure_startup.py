"""Measures the time before the first step for a folder of ImageNet's size, without decoding.

python docs/measure_startup.py DIRECTORY [WORKERS]

Creates DIRECTORY, if it does not exist, with 1,000 directories of 1,281 empty files. Lists them
with and without a cache, and has each of WORKERS processes (32 by default) make a batch, as in a
run that resumes from step 50,000.
"""

import json
import multiprocessing
import sys
import time
from pathlib import Path

from PIL import Image

from asvit_jax.data import loader, sources, transforms
from asvit_jax.data.preprocessing import Preprocessing

# Workers import this file, too.
transforms.decode = lambda *content: Image.new("RGB", (64, 64))


def make_files(root):
  """Creates empty files with names like ImageNet's."""
  for i in range(1000):
    directory = root / "train" / f"n{10_000_000 + i}"
    directory.mkdir(parents=True)
    for k in range(1281):
      (directory / f"{directory.name}_{7 * k}.JPEG").touch()


def open_timed(data):
  """Opens a split; returns (source, seconds)."""
  start = time.perf_counter()
  source = sources.open_source(data, "train")
  return source, time.perf_counter() - start


def own_mb(process_id):
  """MiB of memory that a process shares with no other."""
  lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()
  return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def main(root, workers):
  """Measures; prints a line of JSON."""
  from absl import flags

  from asvit_jax.config import base

  flags.FLAGS.mark_as_parsed()
  if not root.exists():
    make_files(root)
  config = base()
  config.data.update({"name": "folder", "dir": str(root), "workers": workers})
  config.model.image_size, config.batch_size = 32, 16
  _, listed = open_timed(config.data)
  config.data.cache = str(root / "cache")
  _, kept = open_timed(config.data)
  source, cached = open_timed(config.data)
  start = time.perf_counter()
  batches = loader.train_batches(config, source, Preprocessing(), start_step=50_000)
  for _ in range(workers):
    next(batches)
  first = time.perf_counter() - start
  own = [own_mb(child.pid) for child in multiprocessing.active_children()]
  batches.close()
  seconds = {"listed_s": listed, "listed_and_kept_s": kept, "cached_s": cached, "batches_s": first}
  print(json.dumps(seconds | {"mb_a_worker": sum(own) / len(own), "images": len(source)}))


if __name__ == "__main__":
  main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 32)
