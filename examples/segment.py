"""Linear segmentation on frozen tokens: what pruning costs a dense task, and what `unmerge` saves.

    python examples/segment.py
    python examples/segment.py --weights W --mosaics photos/train photos/test
    python examples/segment.py --weights W --images photos --masks masks

The network stays frozen; a linear classifier of its final tokens says the class of every patch. It
is compared for the dense network, and for networks that drop or merge tokens at the same compute.
The test images are of digits or photographs that no classifier was fitted on.

Without photographs, handwritten digits and fragments of others are pasted on canvases, and a patch
is a digit, a fragment or background; the network is the one that `make quickstart` trains, which is
trained if it is not there yet. `--mosaics` sets four photographs of different classes side by side,
from directories `CLASS/FILE`; each patch has the class of its photograph. `--masks` has a PNG for
each of `--images`, of the same name, whose pixels are the numbers of their classes, 255 for those
that do not count; three in ten images are for the test.

Progress goes to stderr, a picture to --picture, and the last line of stdout is JSON: for each
budget and variant `gmacs`, `share` (of dense), `miou` (percent, over patches, with its 95 %
`interval` over images) and `miou_dense_head`, with the dense network's classifier in place of its
own. "unmerged minus" has the intervals of differences on the same images.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image, ImageOps

import asvit_jax
from asvit_jax.core.progress import log
from asvit_jax.data import digits, images, transforms

TRAIN, TEST = 500, 400  # canvases
DIGITS, FRAGMENTS, SIDES, FRAGMENT = 2, 4, (20, 24), 11
IGNORED = 255  # in masks
BATCH, RESAMPLES, STEPS, DECAY = 50, 2000, 150, 1e-4
# In the picture; the others are only in the table.
DRAWN = ("dense", "dropped, zero", "dropped, nearest", "merged, unmerged")


def canvases(members, count, seed, plain=False):
  """Canvases with two whole digits and fragments of others, which do not touch each other.

  Args:
    members: indices of the handwritten digits to use.
    count: number of canvases.
    seed: seed of all choices.
    plain: whether fragments count as background.

  Returns:
    (count, 48, 48, 3) uint8 images, and (count, 48, 48) uint8 masks: 0 background, 1 to 10 the
    digits, 11 fragments, where their ink is.
  """
  glyphs, labels = digits.load_glyphs()
  pictures = np.zeros((count, digits.CANVAS, digits.CANVAS), np.uint8)
  masks = np.zeros_like(pictures)
  for i in range(count):
    rng = np.random.default_rng((seed, i))
    pieces = []
    for number, glyph in enumerate(rng.choice(members, DIGITS + FRAGMENTS, replace=False)):
      side = int(rng.integers(*SIDES, endpoint=True))
      ink, label = (
        np.asarray(Image.fromarray(glyphs[glyph]).resize((side, side))),
        labels[glyph] + 1,
      )
      if number >= DIGITS:
        part = int(rng.integers(*digits.FRAGMENT_SIZES, endpoint=True))
        top, left = rng.integers(0, side - part, 2, endpoint=True)
        ink, label = ink[top : top + part, left : left + part], 0 if plain else FRAGMENT
      pieces.append((ink, label))
    for (ink, label), place in zip(
      pieces, _places([len(ink) for ink, _ in pieces], rng), strict=True
    ):
      pictures[i][place] = ink
      masks[i][place] = np.where(ink >= digits.INK, label, 0)
  return np.repeat(pictures[..., None], 3, axis=-1), masks


def _places(sides, rng):
  """Random slices of a canvas for squares of these sides that do not overlap."""
  while True:
    taken, places = np.zeros((digits.CANVAS, digits.CANVAS), bool), []
    for side in sides:
      windows = np.lib.stride_tricks.sliding_window_view(taken, (side, side))
      free = np.argwhere(~windows.any((-1, -2)))
      if not len(free):
        break
      y, x = free[rng.integers(len(free))]
      places.append(np.s_[y : y + side, x : x + side])
      taken[places[-1]] = True
    else:
      return places


def mosaics(directory, count, size, seed):
  """Mosaics of four photographs of different classes, meeting at a random point.

  Args:
    directory: directory of `CLASS/FILE`.
    count: number of mosaics.
    size: (height, width) of a mosaic.
    seed: seed of all choices.

  Returns:
    (count, height, width, 3) uint8 mosaics, and (count, height, width) uint8 masks, the classes in
    the order of their names.

  Raises:
    InputError: there are fewer than four classes.
  """
  classes = sorted(path for path in pathlib.Path(directory).glob("*/") if path.is_dir())
  files = [images.find(path) for path in classes]
  if sum(map(bool, files)) < 4 or not all(files):
    raise asvit_jax.InputError(f"{directory}: expected at least four directories of photographs")
  height, width = size
  pictures, masks = np.zeros((count, *size, 3), np.uint8), np.zeros((count, *size), np.uint8)
  for i in range(count):
    rng = np.random.default_rng((seed, i))
    y, x = (int(side * rng.uniform(0.3, 0.7)) for side in size)
    corners = ((0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width))
    chosen = rng.choice(len(files), 4, replace=False)
    for (top, left, bottom, right), label in zip(corners, chosen, strict=True):
      file = files[label][rng.integers(len(files[label]))]
      photo = transforms.decode(pathlib.Path(file).read_bytes(), str(file))
      place, shape = np.s_[top:bottom, left:right], (right - left, bottom - top)
      pictures[i][place] = np.asarray(ImageOps.fit(photo, shape, Image.Resampling.BICUBIC))
      masks[i][place] = label
  return pictures, masks


def photographs(network, directory, masks):
  """Photographs and their masks, cropped and resized alike.

  Args:
    network: the `Network` that will see them.
    directory: directory of the images.
    masks: directory of the masks, PNG files with the images' names.

  Returns:
    (b, height, width, 3) uint8 images and (b, height, width) uint8 masks, in the order of names.

  Raises:
    InputError: there are no images, a mask is missing, or its size is not that of its image.
  """
  files = images.find(directory)
  masks_of = [pathlib.Path(masks) / f"{pathlib.Path(file).stem}.png" for file in files]
  missing = [file for file in masks_of if not file.is_file()]
  if not files or missing:
    what = f"{missing[0]}: no such mask" if missing else f"{directory}: no images"
    raise asvit_jax.InputError(f"{what}: expected a PNG in --masks for each file of --images")
  size = network.arch.image_size
  nearest = dataclasses.replace(network.preprocessing, interpolation="nearest")
  found = []
  for file, image in zip(masks_of, files, strict=True):
    with Image.open(file) as opened, Image.open(image) as other:
      if opened.mode not in ("L", "P") or opened.size != other.size:
        raise asvit_jax.InputError(
          f"mask {file} is {opened.mode} of {opened.size} pixels: expected one number per pixel "
          f"(mode L or P) and {other.size}, as its image"
        )
      numbers = Image.fromarray(np.array(opened))  # those of a palette, not its colours
    found.append(np.asarray(transforms.center_crop(numbers, size, nearest)))
  return network.read(files), np.stack(found)


def patch_labels(masks, arch):
  """(b, n) int class of most pixels of each patch, -1 where none counts.

  Args:
    masks: (b, height, width) uint8.
    arch: the `Architecture`.
  """
  b, height, width = masks.shape
  size = arch.patch_size
  tiles = masks.reshape(b, height // size, size, width // size, size).swapaxes(2, 3)
  tiles = tiles.reshape(b, -1, size * size)
  classes = int(masks[masks != IGNORED].max(initial=0)) + 1
  counts = np.stack([(tiles == label).sum(-1) for label in range(classes)], axis=-1)
  return np.where(counts.any(-1), counts.argmax(-1), -1)


def run(network, pixels):
  """The tokens of images, kept in memory.

  Args:
    network: a `Network`.
    pixels: (b, height, width, 3) uint8.

  Returns:
    {"tokens", "positions", "sources", "kept"} of NumPy arrays (b, …), see `Outputs`.
  """
  names, found = ("tokens", "positions", "sources", "kept"), []
  execution = "masked" if network.prunes else "dense"
  for start in range(0, len(pixels), BATCH):
    part = pixels[start : start + BATCH]
    padded = np.concatenate([part, np.repeat(part[-1:], BATCH - len(part), axis=0)])
    outputs = network(padded, execution)
    found.append([np.asarray(getattr(outputs, name))[: len(part)] for name in names])
  return dict(zip(names, map(np.concatenate, zip(*found, strict=True)), strict=True))


def grid(found, sources=None):
  """(b, n, d) tokens of all patches, 0 where a patch was dropped, from the result of `run`."""
  sources = found["sources"] if sources is None else sources
  return np.asarray(asvit_jax.unmerge(found["tokens"], found["positions"], sources))


def nearest_sources(found, arch):
  """As if each removed patch were part of the nearest kept one: what is left without `sources`."""
  n, prefix = arch.patches, arch.prefix_tokens
  width = arch.image_shape[1] // arch.patch_size
  places = np.stack(np.divmod(np.arange(n), width), axis=-1)
  distances = ((places[:, None] - places) ** 2).sum(-1).astype(np.float32)  # (n, n)
  kept = (found["positions"][:, :, None] == np.arange(prefix, prefix + n)).any(1)  # (b, n)
  nearest = np.where(kept[:, None], distances, np.inf).argmin(-1) + prefix
  return np.where(kept.any(1, keepdims=True), nearest, -1)


def variants(dropped, merged, arch):
  """{name: (b, n, d) grid} of pruned networks, from the results of `run`.

  Args:
    dropped: of the network that drops tokens.
    merged: of the network that merges them.
    arch: an `Architecture`, for the places of the patches.
  """
  return {
    "dropped, zero": grid(dropped),
    "dropped, nearest": grid(dropped, nearest_sources(dropped, arch)),
    "merged, nearest": grid(merged, nearest_sources(merged, arch)),
    "merged, unmerged": grid(merged),
  }


def fit(tokens, labels, classes):
  """Fits a linear classifier of tokens: multinomial logistic regression with L-BFGS.

  Args:
    tokens: (b, n, d).
    labels: (b, n) int, -1 where a patch does not count.
    classes: number of classes.

  Returns:
    Function of (b, n, d) tokens that returns (b, n) int classes.
  """
  x, y = tokens[labels >= 0], labels[labels >= 0]
  mean, std = x.mean(0), x.std(0) + 1e-6

  def loss_of(weights, scaled, y):
    logits = scaled @ weights["kernel"] + weights["bias"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return losses.mean() + DECAY * (weights["kernel"] ** 2).sum()

  weights = {"kernel": jnp.zeros((x.shape[1], classes)), "bias": jnp.zeros(classes)}
  optimizer = optax.lbfgs()

  @jax.jit
  def minimized(weights, scaled, y):
    def loss(weights):
      return loss_of(weights, scaled, y)

    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(_, carry):
      weights, state = carry
      value, grad = value_and_grad(weights, state=state)
      updates, state = optimizer.update(grad, state, weights, value=value, grad=grad, value_fn=loss)
      return optax.apply_updates(weights, updates), state

    return jax.lax.fori_loop(0, STEPS, step, (weights, optimizer.init(weights)))[0]

  weights = jax.device_get(minimized(weights, (x - mean) / std, y))
  kernel, bias = weights["kernel"], weights["bias"]
  return lambda tokens: (((tokens - mean) / std) @ kernel + bias).argmax(-1)


def confusions(predicted, labels, classes):
  """(b, classes, classes) number of patches of each image by true and predicted class."""
  found = np.zeros((len(labels), classes * classes))
  for row, truth, guess in zip(found, labels, predicted, strict=True):
    counts = truth >= 0
    row += np.bincount(truth[counts] * classes + guess[counts], minlength=classes**2)
  return found.reshape(-1, classes, classes)


def miou(confusion):
  """The mean, in percent, of the classes' intersection over union; of (…, classes, classes)."""
  both = np.diagonal(confusion, axis1=-2, axis2=-1)
  either = confusion.sum(-1) + confusion.sum(-2) - both
  present = either > 0  # a class that is neither there nor predicted says nothing
  return 100 * (both / np.maximum(either, 1)).sum(-1) / present.sum(-1)


def resampled(confusion, seed=0):
  """(RESAMPLES,) `miou` of as many images drawn with replacement, the same ones in each call."""
  b = len(confusion)
  weights = np.random.default_rng(seed).multinomial(b, np.full(b, 1 / b), RESAMPLES)
  drawn = weights.astype(np.float64) @ confusion.reshape(b, -1)
  return miou(drawn.reshape(-1, *confusion.shape[1:]))


def interval(values):
  """The middle 95 % of values, [low, high]."""
  return np.percentile(values, [2.5, 97.5]).round(2).tolist()


def compare(network, budget, train, test, classes, dense_head):
  """Fits and tests classifiers of a network pruned to a budget.

  Args:
    network: the dense `Network`.
    budget: share of its GMACs.
    train: (images, patch labels).
    test: (images, patch labels); nothing is chosen on them.
    classes: number of classes.
    dense_head: the classifier of the dense network, see `fit`.

  Returns:
    {variant: its results}, {variant: (b, n) predictions}, and {variant: confusions}.
  """
  results, predictions, all_confusions = {}, {}, {}
  pruned = {
    "dropped": network.calibrate(train[0], budget),
    "merged": network.merging().calibrate(train[0], budget),
  }
  before = {name: run(one, train[0]) for name, one in pruned.items()}
  after = {name: run(one, test[0]) for name, one in pruned.items()}
  fitted_on, tested_on = (variants(**found, arch=network.arch) for found in (before, after))
  for name, tokens in tested_on.items():
    kind = name.split(",")[0]
    gmacs = float(pruned[kind].gmacs(after[kind]["kept"]).mean())
    predictions[name] = fit(fitted_on[name], train[1], classes)(tokens)
    all_confusions[name] = confusions(predictions[name], test[1], classes)
    with_dense_head = confusions(dense_head(tokens), test[1], classes)
    results[name] = result(all_confusions[name], gmacs, network.dense_gmacs) | {
      "miou_dense_head": round(float(miou(with_dense_head.sum(0))), 2)
    }
    log(f"budget {budget:g}, {name}: {results[name]}")
  return results, predictions, all_confusions


def result(confusion, gmacs, dense_gmacs):
  """The numbers of a variant, from its confusions (b, classes, classes)."""
  return {
    "gmacs": round(gmacs, 5),
    "share": round(gmacs / dense_gmacs, 4),
    "miou": round(float(miou(confusion.sum(0))), 2),
    "interval": interval(resampled(confusion)),
  }


def draw(pixels, masks, predictions, arch, titles, classes):
  """Draws a row per image: the image, its mask, and the classes predicted for its patches.

  Args:
    pixels: (b, height, width, 3) uint8.
    masks: (b, height, width) uint8.
    predictions: for each of the other columns (b, n) int.
    arch: the `Architecture`.
    titles: texts above the columns.
    classes: number of classes.

  Returns:
    matplotlib `Figure`.
  """
  rows, columns = len(pixels), len(titles)
  colors = np.asarray(colormaps["tab10" if classes <= 11 else "tab20"].colors)
  colors = np.concatenate([[[0.12] * 3], colors[np.arange(classes - 1) % len(colors)]])
  figure = Figure((1.6 * columns, 1.6 * rows + 0.35), dpi=110)
  axes = figure.subplots(rows, columns, squeeze=False)
  for i in range(rows):
    shown = [pixels[i], np.where((masks[i] == IGNORED)[..., None], 1.0, colors[masks[i] % classes])]
    for of_patches in predictions:
      height, width = (side // arch.patch_size for side in pixels.shape[1:3])
      shown.append(colors[of_patches[i].reshape(height, width)])
    for ax, picture, title in zip(axes[i], shown, titles, strict=True):
      ax.imshow(picture, interpolation="nearest")
      ax.set_axis_off()
      if i == 0:
        ax.set_title(title, fontsize=9)
  figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.35 / (1.6 * rows + 0.35), 0.04, 0.04)
  return figure


def main(argv=None):
  """Runs everything; prints the results as JSON."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--weights", help="weights of any format; by default the digits network")
  parser.add_argument("--images", help="directory of photographs; by default digits are pasted")
  parser.add_argument("--masks", help="directory of their masks")
  parser.add_argument("--mosaics", nargs=2, help="two directories of CLASS/FILE: train and test")
  parser.add_argument("--budget", type=float, nargs="+", default=[0.65, 0.5])
  parser.add_argument("--workdir", default="runs/digits", help="of the digits network")
  parser.add_argument("--picture", default="runs/segmentation.png")
  parser.add_argument("--plain", action="store_true", help="fragments count as background")
  parser.add_argument("--count", type=int, nargs=2, default=(TRAIN, TEST), help="of canvases")
  given, start = parser.parse_args(argv), time.perf_counter()
  photos = given.images or given.mosaics
  if bool(given.images) != bool(given.masks) or (photos and not given.weights):
    parser.error("photographs need --weights, and --images and --masks, or --mosaics")
  if given.weights:
    network = asvit_jax.load(given.weights).dense
  else:
    asvit_jax.train(asvit_jax.recipe("digits"), given.workdir)  # at once if it is trained already
    network = asvit_jax.load(given.workdir)
  log(f"{time.perf_counter() - start:.0f} s: the network is there")
  if given.images:
    pixels, masks = photographs(network, given.images, given.masks)
    order = np.random.default_rng(0).permutation(len(pixels))
    cut = round(0.7 * len(order))
    parts = [(pixels[rows], masks[rows]) for rows in (order[:cut], order[cut:])]
  elif given.mosaics:
    size = network.arch.image_shape[:2]
    drawn_of = zip(given.mosaics, given.count, (11, 12), strict=True)
    parts = [mosaics(directory, count, size, seed) for directory, count, seed in drawn_of]
  else:
    order = np.random.default_rng(0).permutation(len(digits.load_glyphs()[0]))  # that of training
    members = order[: digits.TRAIN_GLYPHS], order[digits.TRAIN_GLYPHS :]
    seeds = (11, 12)
    parts = [
      canvases(*of, plain=given.plain) for of in zip(members, given.count, seeds, strict=True)
    ]
  arch = network.arch
  train, test = ((pixels, patch_labels(masks, arch)) for pixels, masks in parts)
  classes = int(max(train[1].max(), test[1].max())) + 1
  log(f"{len(train[0]):,} + {len(test[0]):,} images, {classes} classes, {arch.patches} patches")
  dense_head = fit(grid(run(network, train[0])), train[1], classes)
  predicted = dense_head(grid(run(network, test[0])))
  dense = confusions(predicted, test[1], classes)
  found = {"dense": result(dense, network.dense_gmacs, network.dense_gmacs)}
  log(f"{time.perf_counter() - start:.0f} s: dense: {found['dense']}")
  drawn = {"dense": predicted}
  for budget in given.budget:
    results, predictions, all_confusions = compare(
      network, budget, train, test, classes, dense_head
    )
    means = {name: resampled(confusion) for name, confusion in all_confusions.items()}
    gained = means.pop("merged, unmerged")
    results["unmerged minus"] = {name: interval(gained - other) for name, other in means.items()}
    found[f"{budget:g}"] = results
    drawn |= predictions  # of the last budget
    log(f"{time.perf_counter() - start:.0f} s: budget {budget:g} is done")
  at = f" {given.budget[-1]:.0%}"
  titles = ["image", "truth", DRAWN[0], *(name.replace(", ", "\n") + at for name in DRAWN[1:])]
  figure = draw(
    test[0][:6], parts[1][1][:6], [drawn[name][:6] for name in DRAWN], arch, titles, classes
  )
  picture = pathlib.Path(given.picture)
  picture.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(picture)
  found |= {"images": len(test[0]), "classes": classes, "picture": str(picture)}
  print(json.dumps(found | {"seconds": round(time.perf_counter() - start)}))


if __name__ == "__main__":
  try:
    main()
  except asvit_jax.InputError as error:
    sys.exit(f"segment.py: {error}")
