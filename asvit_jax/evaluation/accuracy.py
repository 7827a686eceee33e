"""Exact evaluation: every image once, sums over images divided once, any number of devices."""

import functools
import json
import time

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec

from asvit_jax.core import storage
from asvit_jax.core.devices import AXIS, local_mesh, on_each_local
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import Progress
from asvit_jax.data import loader


def classify(network, images, execution):
  """The compiled forward pass of a batch, split over this host's devices.

  Args:
    network: a `Network`.
    images: (b, s, s, 3) uint8.
    execution: a name of `EXECUTIONS`.

  Returns:
    Dictionary of `top5` (b, 5) class indices, best first (fewer where there are fewer classes),
    `probability` (b,) of the first, and `keep` (b, stages, n) bool.
  """
  return _program(execution)(on_each_local(network), images)


@functools.cache
def _program(execution):
  def step(network, images):
    outputs = network.apply(images, execution)
    probabilities = jax.nn.softmax(outputs.logits)
    _, top5 = jax.lax.top_k(outputs.logits, min(5, outputs.logits.shape[-1]))
    return {"top5": top5, "probability": probabilities.max(axis=-1), "keep": outputs.keep > 0.5}

  data = PartitionSpec(AXIS)
  # Devices never talk to each other here, so there is nothing for its check to find; the loops of
  # the packed execution, whose counters are the same on all devices, would fail it.
  return jax.jit(
    jax.shard_map(
      step, mesh=local_mesh(), in_specs=(PartitionSpec(), data), out_specs=data, check_vma=False
    )
  )


def evaluate(network, config, source, execution=None, per_image=None, stopped=None):
  """Accuracy, compute and kept tokens of a network on a data set, each image counted once.

  Of several hosts each runs its own part of the images, and all return the same.

  Args:
    network: a `Network`.
    config: a config; `data` and `eval.batch_size` are read.
    source: where the images come from.
    execution: a name of `EXECUTIONS`; by default packed where it prunes, else dense.
    per_image: file to write a line of JSON an image to, or None.
    stopped: function asked before every batch whether to stop, or None.

  Returns:
    None where `stopped` said so, else a dictionary: `top1` and `top5` in percent; `gmacs`, the mean
    over the images, as the paper counts; `share` of the dense GMACs; `real_gmacs`, what is really
    computed, see `sparsity.complexity`; `kept`, for each stage the `mean`, `std`, `min` and
    `max` of the patch tokens kept; `images`, without the `bad_images` that `data.max_bad_images`
    allowed to leave out; `images_per_s`, loading included and compilation not. Where the data has
    boxes, also `kept_in_box` and `kept_outside`: for each stage the share that it kept of all the
    patches whose centre lies in, or outside, their image's box.

  Raises:
    InputError: an unreadable image, or `per_image` cannot be written.
  """
  hosts = jax.process_count()
  execution = execution or network.default_execution()
  network = on_each_local(network)
  batches = loader.eval_batches(config, source, network.preprocessing, jax.process_index(), hosts)
  size, images = network.arch.image_size, config.eval.batch_size // hosts
  jax.block_until_ready(classify(network, np.zeros((images, size, size, 3), np.uint8), execution))
  columns = []  # a dictionary of arrays a batch
  progress = Progress("evaluating, images", len(source))
  start = time.perf_counter()
  for batch in batches:
    if stopped is not None and stopped():
      return None
    outputs = jax.device_get(classify(network, batch["image"], execution))
    columns.append(rows_of(batch | outputs, network.arch))
    progress.update(min(len(columns) * config.eval.batch_size, len(source)))
  seconds = time.perf_counter() - start
  rows = {k: np.concatenate([np.asarray(c[k]) for c in columns]) for k in columns[0]}
  if hosts > 1:
    rows = _of_all_hosts(rows)
  valid = rows.pop("valid").astype(bool)  # padding is not
  rows = {k: v[valid] for k, v in rows.items()}
  if per_image is not None:
    _write_per_image(per_image, rows)
  if not len(rows["label"]):
    raise InputError(f"none of the {len(source)} images could be read: see the warnings above")
  counts = {"bad_images": len(source) - len(rows["label"])}
  return summarize(rows, network) | counts | {"images_per_s": len(rows["label"]) / seconds}


def _of_all_hosts(rows):
  """The rows of all hosts, which have equally many, padding included; without names of files."""
  rows = {k: v for k, v in rows.items() if v.dtype.kind not in "UO"}
  gathered = multihost_utils.process_allgather(rows)
  # (hosts, b, …) -> (hosts · b, …), also where it is empty as a dense network's `kept`.
  return {k: np.concatenate(np.asarray(v)) for k, v in gathered.items()}


def rows_of(batch, arch):
  """What is known of each image of a batch.

  Args:
    batch: of `loader.eval_batches`, with what `classify` says of it.
    arch: the `Architecture`.

  Returns:
    Dictionary of arrays whose first axis are the images.
  """
  hits = batch["top5"] == batch["label"][:, None]
  rows = {
    "valid": batch["valid"],
    "file": batch["file"],
    "label": batch["label"],
    "prediction": batch["top5"][:, 0],
    "top1": hits[:, 0],
    "top5": hits.any(axis=1),
    "kept": batch["keep"].sum(axis=-1),  # (b, stages)
  }
  if "box" in batch:
    inside = _patches_in_box(batch["box"], arch)[:, None]  # (b, 1, n)
    rows["patches"] = np.concatenate([inside.sum(-1), (~inside).sum(-1)], axis=-1)  # (b, 2)
    rows["in_box"] = (batch["keep"] & inside).sum(axis=-1)
    rows["outside"] = (batch["keep"] & ~inside).sum(axis=-1)
  return rows


def summarize(rows, network):
  """The results of `evaluate` that follow from the `rows_of` all images."""
  kept = rows["kept"]
  gmacs = float(network.gmacs(kept).mean()) if kept.shape[-1] else network.dense_gmacs
  result = {
    "top1": 100 * float(rows["top1"].mean()),
    "top5": 100 * float(rows["top5"].mean()),
    "gmacs": gmacs,
    "share": gmacs / network.dense_gmacs,
    "real_gmacs": float(np.mean(network.real_gmacs(kept))),
    "kept": [
      {
        "mean": float(stage.mean()),
        "std": float(stage.std()),
        "min": int(stage.min()),
        "max": int(stage.max()),
      }
      for stage in kept.T
    ],
    "images": len(kept),
  }
  if "in_box" in rows:
    inside, outside = rows["patches"].sum(axis=0)
    result["kept_in_box"] = (rows["in_box"].sum(axis=0) / max(inside, 1)).tolist()
    result["kept_outside"] = (rows["outside"].sum(axis=0) / max(outside, 1)).tolist()
  return result


def _patches_in_box(boxes, arch):
  """(b, 4) relative (ymin, xmin, ymax, xmax) -> (b, n) bool: the patches centred in the box."""
  centres = (np.arange(arch.side) + 0.5) / arch.side
  ymin, xmin, ymax, xmax = (boxes[:, i, None] for i in range(4))
  rows = (ymin <= centres) & (centres < ymax)  # (b, side)
  columns = (xmin <= centres) & (centres < xmax)
  return (rows[:, :, None] & columns[:, None, :]).reshape(len(boxes), -1)


def _write_per_image(path, rows):
  keys = ("file", "label", "prediction", "kept")
  lines = zip(*(rows[k].tolist() for k in keys), strict=True)
  text = "".join(json.dumps(dict(zip(keys, line, strict=True))) + "\n" for line in lines)
  storage.write(path, text, "per-image results")
