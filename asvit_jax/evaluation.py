"""Exact evaluation: every image once, sums over images divided once, any number of devices."""

import functools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from asvit_jax import cli, complexity, inference, vit
from asvit_jax.data import loader, transforms
from asvit_jax.errors import InputError
from asvit_jax.training.step import AXIS


@functools.cache
def make_eval_step(arch, execution, dtype=jnp.float32):
  """The compiled forward pass of a batch, split over this host's devices.

  Args:
    arch: an `Architecture`; dense, where the execution is.
    execution: a key of `inference.EXECUTIONS`.
    dtype: compute type.

  Returns:
    Function of (params, images (b, s, s, 3) uint8) that returns a dictionary of `top5` (b, 5) class
    indices, best first (fewer where there are fewer classes), `probability` (b,) of the first,
    and `keep` (b, stages, n) bool.
  """
  forward = inference.EXECUTIONS[execution]
  graphdef, _ = vit.abstract(arch, dtype=dtype)

  def step(params, images):
    outputs = forward(nnx.merge(graphdef, params), transforms.normalize(images))
    probabilities = jax.nn.softmax(outputs.logits)
    _, top5 = jax.lax.top_k(outputs.logits, min(5, outputs.logits.shape[-1]))
    return {"top5": top5, "probability": probabilities.max(axis=-1), "keep": outputs.keep > 0.5}

  data = PartitionSpec(AXIS)
  # Devices never talk to each other here, so there is nothing for its check to find; the loops of
  # the packed execution, whose counters are the same on all devices, would fail it.
  sharded = jax.shard_map(
    step, mesh=_mesh(), in_specs=(PartitionSpec(), data), out_specs=data, check_vma=False
  )
  program = jax.jit(sharded)
  return lambda params, images: program(_everywhere(params), images)


def evaluate(step, arch, params, config, source, per_image=None, stopped=None):
  """Accuracy, compute and kept tokens of a network on a data set, each image counted once.

  Of several hosts each runs its own part of the images, and all return the same.

  Args:
    step: of `make_eval_step`.
    arch: its `Architecture`; dense, where the execution is.
    params: its parameters.
    config: a config; `data`, `model` and `eval.batch_size` are read.
    source: where the images come from.
    per_image: file to write a line of JSON an image to, or None.
    stopped: function asked before every batch whether to stop, or None.

  Returns:
    None where `stopped` said so, else a dictionary: `top1` and `top5` in percent; `gmacs`, the mean
    over the images; `share` of the dense GMACs; `kept`, for each stage the `mean`, `std`, `min` and
    `max` of the patch tokens kept; `images`, without the `bad_images` that `data.max_bad_images`
    allowed to leave out; `images_per_s`, loading included and compilation not. Where the data has
    boxes, also `kept_in_box` and `kept_outside`: for each stage the share that it kept of all the
    patches whose centre lies in, or outside, their image's box.

  Raises:
    InputError: an unreadable image, or `per_image` cannot be written.
  """
  hosts = jax.process_count()
  batches = loader.eval_batches(config, source, jax.process_index(), hosts)
  params = _everywhere(params)
  size, images = config.model.image_size, config.eval.batch_size // hosts
  jax.block_until_ready(step(params, np.zeros((images, size, size, 3), np.uint8)))
  columns = []  # a dictionary of arrays a batch
  progress = cli.Progress("evaluating, images", len(source))
  start = time.perf_counter()
  for batch in batches:
    if stopped is not None and stopped():
      return None
    outputs = jax.device_get(step(params, batch["image"]))
    columns.append(_per_image(batch | outputs, arch))
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
  return _summary(rows, arch) | counts | {"images_per_s": len(rows["label"]) / seconds}


def _everywhere(params):
  """A copy on each of this host's devices; nothing moves where it is there already."""
  return jax.device_put(params, NamedSharding(_mesh(), PartitionSpec()))


def _mesh():
  return Mesh(np.asarray(jax.local_devices()), (AXIS,))


def _of_all_hosts(rows):
  """The rows of all hosts, which have equally many, padding included; without names of files."""
  rows = {k: v for k, v in rows.items() if v.dtype.kind not in "UO"}
  gathered = multihost_utils.process_allgather(rows)
  # (hosts, b, …) -> (hosts · b, …), also where it is empty as a dense network's `kept`.
  return {k: np.concatenate(np.asarray(v)) for k, v in gathered.items()}


def _per_image(batch, arch):
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


def _summary(rows, arch):
  kept = rows["kept"]
  if arch.prune_before:
    per_image = complexity.gmacs(arch, jnp.asarray(kept, jnp.float32))
    gmacs = float(np.asarray(per_image, np.float64).mean())
  else:
    gmacs = complexity.dense_gmacs(arch)
  result = {
    "top1": 100 * float(rows["top1"].mean()),
    "top5": 100 * float(rows["top5"].mean()),
    "gmacs": gmacs,
    "share": gmacs / complexity.dense_gmacs(arch),
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
  side = arch.image_size // arch.patch_size
  centres = (np.arange(side) + 0.5) / side
  ymin, xmin, ymax, xmax = (boxes[:, i, None] for i in range(4))
  rows = (ymin <= centres) & (centres < ymax)  # (b, side)
  columns = (xmin <= centres) & (centres < xmax)
  return (rows[:, :, None] & columns[:, None, :]).reshape(len(boxes), -1)


def _write_per_image(path, rows):
  path = pathlib.Path(path)
  partial = path.with_name(path.name + ".partial")
  keys = ("file", "label", "prediction", "kept")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("w") as file:
      for values in zip(*(rows[k].tolist() for k in keys), strict=True):
        file.write(json.dumps(dict(zip(keys, values, strict=True))) + "\n")
    partial.replace(path)
  except OSError as error:
    raise InputError(f"cannot write per-image results to {path}: {error}") from error
