"""One pass over a data set: networks run on each image while the next ones are decoded."""

import contextlib
import functools
import itertools
import time

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec

from asvit_jax.core import exchange
from asvit_jax.core.ahead import Ahead
from asvit_jax.core.devices import AXIS, local_mesh, on_each_local, split_over_local
from asvit_jax.core.progress import Progress
from asvit_jax.core.promotion import usual
from asvit_jax.data import loader
from asvit_jax.losses.terms import divergence
from asvit_jax.network import streaming

# Executions that pad less the more images they run at once; and the least number of pools of a data
# set, as the last one is padded.
_POOLED, _LEAST_POOLS = ("packed", "flat"), 8


def run(networks, plan, source, execution, stopped=None, with_files=False, against_dense=False):
  """Runs networks on every image once, and decodes each image once.

  While the devices compute a batch, the next two are decoded and transferred, by threads or by
  `data.workers`, and the results of the previous batch are fetched.

  Args:
    networks: `Network`s that differ only in their parameters.
    plan: a `Plan`; `data` and `eval.batch_size` are read. On accelerators, packed and flat run
      several batches at once, as many as make a pool of `Network.stream`.
    source: source of the images.
    execution: a name of `EXECUTIONS`.
    stopped: function, called before every batch, that returns whether to stop; or None.
    with_files: whether to gather the file names of other hosts, too.
    against_dense: whether to also run the dense network with the same parameters.

  Returns:
    None if `stopped` returned True; else, for each network, the `rows_of` all images of all hosts
    in the order of the source, and the seconds that the pass took, compilation excluded.

  Raises:
    InputError: an image is unreadable.
  """
  hosts, first = jax.process_count(), networks[0]
  networks = [on_each_local(network.for_execution(execution)) for network in networks]
  many = _batches_at_once(first, execution, plan.eval.batch_size, len(source))
  images = plan.eval.batch_size // hosts
  zeros = np.zeros((many * images, *first.arch.image_shape), np.uint8)
  jax.block_until_ready(classify(first, zeros, execution, against_dense))
  start = time.perf_counter()
  batches = loader.eval_batches(plan, source, first.preprocessing, jax.process_index(), hosts)

  def put(batch):
    return batch | {"image": split_over_local(batch["image"])}

  with Ahead(_joined(batches, many), put, stopped=stopped) as ready:
    run_one = functools.partial(classify, execution=execution, against_dense=against_dense)
    columns = _columns(networks, ready, many * plan.eval.batch_size, len(source), run_one, stopped)
  if columns is None:
    return None
  seconds = max(exchange.gather(time.perf_counter() - start))
  every = [{k: np.concatenate([c[k] for c in of_one]) for k in of_one[0]} for of_one in columns]
  if hosts > 1:
    every = [_of_all_hosts(rows, images, with_files) for rows in every]
  return [_without_padding(rows) for rows in every], seconds


def _batches_at_once(network, execution, batch, count):
  """The number of batches to run at once: packed and flat run pools on accelerators.

  Args:
    network: a `Network`.
    execution: a name of `EXECUTIONS`.
    batch: number of images of a batch, over all devices of all hosts.
    count: number of images.
  """
  if execution not in _POOLED or jax.default_backend() == "cpu":
    return 1
  pool = streaming.pool_of(network) * jax.device_count()
  return max(1, min(pool, count // _LEAST_POOLS) // batch)


def _joined(batches, many):
  """Yields every `many` batches as one; padding fills the last."""
  with contextlib.closing(batches):
    if many == 1:
      yield from batches
    while parts := list(itertools.islice(batches, many)):
      padding = {k: np.zeros_like(v) for k, v in parts[0].items() if k != "file"}
      parts += [padding | {"file": [""] * len(parts[0]["file"])}] * (many - len(parts))
      joined = {k: np.concatenate([part[k] for part in parts]) for k in padding}
      yield joined | {"file": list(itertools.chain(*(part["file"] for part in parts)))}


def classify(network, images, execution, against_dense=False):
  """Runs the compiled forward pass on a batch, split over this host's devices.

  Args:
    network: a `Network`.
    images: (b, s, s, 3) uint8, on the host, or on the devices as by `split_over_local`.
    execution: a name of `EXECUTIONS`.
    against_dense: whether to also run the dense network with the same parameters.

  Returns:
    Dictionary of `top5` (b, 5) class indices, best first (fewer if there are fewer classes),
    `probability` (b,) of the best, and `keep` (b, stages, n) bool. With `against_dense` also `kl`
    (b,), KL(dense ‖ this) of the predictions in nats, and `dense` (b,), the dense network's class.
  """
  run = program(execution, local_mesh(), against_dense)
  return run(on_each_local(network.for_execution(execution)), split_over_local(images))


@functools.cache
def program(execution, mesh, against_dense=False):
  """The jitted function of (network, images) behind `classify`, for the devices of a mesh."""

  @usual
  def step(network, images):
    outputs = network.apply(images, execution)
    probabilities = jax.nn.softmax(outputs.logits)
    _, top5 = jax.lax.top_k(outputs.logits, min(5, outputs.logits.shape[-1]))
    found = {"top5": top5, "probability": probabilities.max(axis=-1), "keep": outputs.keep > 0.5}
    if not against_dense:
      return found
    dense = network.apply(images, "dense").logits
    return found | {"kl": divergence(outputs.logits, dense), "dense": dense.argmax(axis=-1)}

  data = PartitionSpec(AXIS)
  # check_vma=False: devices do not communicate here, so there is nothing to check; and the loops of
  # the packed execution, whose counters are equal on all devices, would fail the check.
  return jax.jit(
    jax.shard_map(
      step, mesh=mesh, in_specs=(PartitionSpec(), data), out_specs=data, check_vma=False
    )
  )


def _columns(networks, batches, at_once, count, run_one, stopped):
  """For each network, the `rows_of` each batch as a list; None if `stopped` returned True."""
  progress = Progress("evaluating, images", count)
  columns, before = [[] for _ in networks], None

  def fetch(done):
    if done is None:
      return
    batch, outputs = done
    for column, output in zip(columns, jax.device_get(outputs), strict=True):
      column.append(rows_of(batch | output, networks[0].arch))
    progress.update(min(len(columns[0]) * at_once, count))

  for batch in batches:
    if stopped is not None and stopped():
      return None
    images = batch.pop("image")
    outputs = [run_one(network, images) for network in networks]
    fetch(before)
    before = batch, outputs
  if stopped is not None and stopped():  # stopping also ends the batches early
    return None
  fetch(before)
  return columns


def _without_padding(rows):
  valid = rows.pop("valid").astype(bool)
  return {k: v[valid] for k, v in rows.items()}


def _of_all_hosts(rows, batch, with_files):
  """Gathers the rows of all hosts, in the order of the source.

  Args:
    rows: rows of this host; the others have as many, padding included.
    batch: number of images in a host's batch.
    with_files: whether to gather the names of files, whose lengths differ between hosts.
  """
  files = rows.pop("file").tolist()  # devices gather numbers, not text
  gathered = multihost_utils.process_allgather(rows)
  if with_files:
    gathered["file"] = np.asarray(exchange.gather(files))

  def in_order(x):  # a global batch is the hosts' batches, one after the other
    x = np.asarray(x)  # (hosts, images, …); the stages' axis may have length 0
    hosts, count, *rest = x.shape
    parts = x.reshape(hosts, count // batch, batch, *rest)
    return np.swapaxes(parts, 0, 1).reshape(hosts * count, *rest)

  return {k: in_order(v) for k, v in gathered.items()}


def rows_of(batch, arch):
  """The results of each image of a batch.

  Args:
    batch: batch of `loader.eval_batches`, joined with the result of `classify`.
    arch: the `Architecture`.

  Returns:
    Dictionary of arrays; the first axis runs over the images.
  """
  hits = batch["top5"] == batch["label"][:, None]
  rows = {
    "valid": batch["valid"],
    "file": np.asarray(batch["file"]),
    "label": batch["label"],
    "prediction": batch["top5"][:, 0],
    # One logit that is not finite makes the probability not finite.
    "finite": np.isfinite(batch.get("probability", np.zeros(len(batch["label"])))),
    "top1": hits[:, 0],
    "top5": hits.any(axis=1),
    "kept": batch["keep"].sum(axis=-1),  # (b, stages)
  }
  if "kl" in batch:
    rows["kl"], rows["agrees"] = batch["kl"], batch["dense"] == batch["top5"][:, 0]
  if "box" in batch:
    inside = _patches_in_box(batch["box"], arch)[:, None]  # (b, 1, n)
    rows["patches"] = np.concatenate([inside.sum(-1), (~inside).sum(-1)], axis=-1)  # (b, 2)
    rows["in_box"] = (batch["keep"] & inside).sum(axis=-1)
    rows["outside"] = (batch["keep"] & ~inside).sum(axis=-1)
  return rows


def _patches_in_box(boxes, arch):
  """(b, 4) relative (ymin, xmin, ymax, xmax) -> (b, n) bool: patches whose centre is inside."""
  y, x = ((np.arange(count) + 0.5) / count for count in arch.grid)
  ymin, xmin, ymax, xmax = (boxes[:, i, None] for i in range(4))
  rows = (ymin <= y) & (y < ymax)  # (b, rows)
  columns = (xmin <= x) & (x < xmax)
  return (rows[:, :, None] & columns[:, None, :]).reshape(len(boxes), -1)
