"""Exact evaluation: every image once, sums divided once at the end, on any number of devices."""

import json

import numpy as np

from asvit_jax.core import hosts, storage
from asvit_jax.core.devices import precision
from asvit_jax.core.errors import InputError
from asvit_jax.evaluation import divergence, one_pass, per_class, prediction

_PER_IMAGE = "per-image results"


def evaluate(
  network,
  plan,
  source,
  execution=None,
  per_image=None,
  stopped=None,
  confusion=False,
  against_dense=False,
):
  """Evaluates accuracy, compute and kept tokens of a network on a data set, each image once.

  With several hosts, each runs its own part of the images, and all return the same result.

  Args:
    network: a `Network`.
    plan: a `Plan`; `data` and `eval.batch_size` are read.
    source: source of the images.
    execution: a name of `EXECUTIONS`; by default packed if the network prunes, else dense.
    per_image: file to write one line of JSON per image to, or None.
    stopped: function, called before every batch, that returns whether to stop; or None.
    confusion: whether to return the `confusion` matrix, see `per_class.confusion_matrix`.
    against_dense: whether to also run the dense network with the same parameters on the same
      images; `images_per_s` then covers both.

  Returns:
    None if `stopped` returned True, else a dictionary: `top1` and `top5` in percent; `gmacs`, the
    mean over the images, counted as in the paper; `share` of the dense GMACs; `real_gmacs`, the
    GMACs actually computed, see `sparsity.complexity`; `kept`, for each stage the `mean`, `std`,
    `min` and `max` number of kept patch tokens; `images`, without the unreadable `bad_images` that
    `data.max_bad_images` allows; `images_per_s`, including loading but not compilation. If the
    data has boxes, also `kept_in_box` and `kept_outside`: for each stage the share of patches kept
    among those whose centre lies inside, or outside, the box of their image. With `against_dense`
    also the keys of `divergence.summarize`.

  Raises:
    InputError: an image is unreadable, a prediction is not finite, `per_image` cannot be written,
      or the network has no classifier.
  """
  found = evaluate_each(
    [network], plan, source, execution, per_image, stopped, confusion, against_dense, finite=True
  )
  return None if found is None else found[0]


def evaluate_each(
  networks,
  plan,
  source,
  execution=None,
  per_image=None,
  stopped=None,
  confusion=False,
  against_dense=False,
  finite=False,
):
  """Does what `evaluate` does, for several networks in one pass: each image is decoded once.

  Args:
    networks: `Network`s that differ only in their parameters.
    plan: see `evaluate`.
    source: see `evaluate`.
    execution: see `evaluate`.
    per_image: see `evaluate`; covers the first network only.
    stopped: see `evaluate`.
    confusion: see `evaluate`.
    against_dense: see `evaluate`.
    finite: whether non-finite predictions are an error, as in `evaluate`. In training they are
      not: the step that diverges reports it.

  Returns:
    None if `stopped` returned True, else a list with the result of `evaluate` for each network.

  Raises:
    InputError: as `evaluate`.
  """
  networks[0].arch.check_classifies("accuracy of")
  if per_image is not None and hosts.is_first():
    storage.check_file(per_image, _PER_IMAGE)
  execution = execution or networks[0].default_execution()
  with precision(plan.model.precision):
    found = one_pass.run(
      networks, plan, source, execution, stopped, per_image is not None, against_dense
    )
  if found is None:
    return None
  every, seconds = found
  for rows in every if finite else ():
    places = [f"image {i} of the split" for i in range(len(rows["finite"]))]
    prediction.check_finite(rows["finite"], rows.get("file", places))
  if per_image is not None and hosts.is_first():
    _write_per_image(per_image, every[0])
  images = len(every[0]["label"])
  if not images:
    raise InputError(f"none of the {len(source)} images could be read: see the warnings above")
  counts = {"bad_images": len(source) - images, "images_per_s": images / seconds}
  results = [summarize(rows, net) | counts for rows, net in zip(every, networks, strict=True)]
  for result, rows, net in zip(results, every, networks, strict=True) if confusion else ():
    result["confusion"] = per_class.confusion_matrix(
      rows["label"], rows["prediction"], net.arch.classes
    )
  return results


def summarize(rows, network):
  """The results of `evaluate` that follow from the rows (`one_pass.rows_of`) of all images."""
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
  if "kl" in rows:
    result |= divergence.summarize(rows["kl"], rows["agrees"])
  if "in_box" in rows:
    inside, outside = rows["patches"].sum(axis=0)
    result["kept_in_box"] = (rows["in_box"].sum(axis=0) / max(inside, 1)).tolist()
    result["kept_outside"] = (rows["outside"].sum(axis=0) / max(outside, 1)).tolist()
  return result


def _write_per_image(path, rows):
  keys = ("file", "label", "prediction", "kept", *(k for k in ("kl", "agrees") if k in rows))
  lines = zip(*(rows[k].tolist() for k in keys), strict=True)
  text = "".join(json.dumps(dict(zip(keys, line, strict=True))) + "\n" for line in lines)
  storage.write(path, text, _PER_IMAGE)
