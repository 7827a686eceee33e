"""Predictions and kept tokens of single images, for the gallery of a page."""

import dataclasses

import jax
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import Progress
from asvit_jax.data import loader, sources
from asvit_jax.evaluation.accuracy import summarize
from asvit_jax.evaluation.one_pass import classify, rows_of
from asvit_jax.report.page import jpeg
from asvit_jax.report.page.contents import Gallery, Picture, pack_masks
from asvit_jax.sparsity.reductions import REDUCTIONS

COUNT = 1000  # default number of images on a page


def collect(network, plan, source, execution, count=COUNT):
  """Runs a network on images and, if it prunes, also its dense counterpart.

  Memory per image is a JPEG of at most `jpeg.MOST_BYTES` and a few numbers.

  Args:
    network: a `Network`.
    plan: a `Plan`; `data` and `eval.batch_size` are read.
    source: source of the images.
    execution: a name of `EXECUTIONS`.
    count: number of images, evenly spaced; all if there are fewer.

  Returns:
    The `Gallery`, and the `accuracy.summarize` of the dense network on these images, or None if
    the network does not prune.

  Raises:
    InputError: no image can be read, or an unreadable one is not allowed.
  """
  prunes = execution != "dense"
  sample = sources.Sample(source, count)
  pictures, rows_dense = [], []
  progress = Progress("images for the report", len(sample))
  done = 0
  for batch in loader.eval_batches(plan, sample, network.preprocessing):
    pruned = jax.device_get(classify(network, batch["image"], execution))
    dense = jax.device_get(classify(network.dense, batch["image"], "dense")) if prunes else None
    pictures += _pictures(network, batch, pruned, dense)
    if prunes:
      rows = rows_of({k: v for k, v in batch.items() if k != "box"} | dense, network.arch)
      rows_dense.append({k: np.asarray(v)[batch["valid"]] for k, v in rows.items()})
    done += len(batch["valid"])
    progress.update(min(done, len(sample)))
  if not pictures:
    raise InputError(f"none of the {len(sample)} images for the report could be read")
  gallery = _gallery(network, sample, pictures, prunes)
  return gallery, _summary(network, rows_dense) if prunes else None


def _summary(network, rows):
  joined = {k: np.concatenate([part[k] for part in rows]) for k in rows[0]}
  return summarize(joined, network.dense)


def _pictures(network, batch, pruned, dense):
  """The `Picture`s of a batch, padding excluded."""
  gmacs = network.gmacs(pruned["keep"].sum(axis=-1))
  answers = list(zip(*_answers(pruned), strict=True))
  before = [None] * len(gmacs) if dense is None else list(zip(*_answers(dense), strict=True))
  return [
    Picture(
      file=str(batch["file"][i]),
      label=int(batch["label"][i]),
      prediction=answers[i][0],
      probability=answers[i][1],
      gmacs=float(gmacs[i]),
      keep=pack_masks(pruned["keep"][i]),
      jpeg=jpeg.encode(batch["image"][i]),
      dense=before[i],
    )
    for i in np.flatnonzero(batch["valid"])
  ]


def _answers(outputs):
  """Class and probability of each image's prediction, as two lists."""
  return outputs["top5"][:, 0].tolist(), np.asarray(outputs["probability"], float).tolist()


def _gallery(network, source, pictures, prunes):
  names = network.classes or source.classes
  cut = _shared_directory([picture.file for picture in pictures])
  used = {p.label for p in pictures} | {p.prediction for p in pictures}
  used |= {p.dense[0] for p in pictures if p.dense is not None}
  return Gallery(
    pictures=tuple(dataclasses.replace(p, file=p.file[cut:]) for p in pictures),
    classes={label: names[label] for label in sorted(used) if 0 <= label < len(names)},
    stages=tuple(f"before block {b}" for b in network.arch.prune_before) if prunes else (),
    grid=network.arch.grid,
    dense_gmacs=float(network.dense_gmacs),
    merges=REDUCTIONS[network.arch.reduction].changes_tokens,
  )


def _shared_directory(files):
  """Length of the common path of all files, up to its last slash."""
  first, last = min(files), max(files)  # the common prefix of the extremes is common to all
  same = [a == b for a, b in zip(first, last, strict=False)]
  shared = same.index(False) if False in same else len(same)
  return first.rfind("/", 0, shared) + 1
