"""Compares the programs of an artifact with the network in memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.core.promotion import usual
from asvit_jax.core.sizes import height_width
from asvit_jax.export.programs import output_names

TOLERANCE = 1e-3  # of logits; other compilers sum in another order
_NEAR = 1e-6  # distance from a threshold within which rounding decides
# Other compilers' results differ from ours about as much as those of parameters that differ by this
# share. A score may jump: it compares a token only with tokens of more attention.
_ROUNDING, _ROUNDED = 1e-5, 3  # and how often that is tried
# Share of patches that may be part of another token: rounding decides where two are equally alike.
_TIED = 0.02


def largest_difference(network, programs, name, execution=None):
  """Runs random and extreme images through every program and through the network in memory.

  Images of which rounding decides what is kept are excluded: a score is close to its threshold, or
  parameters that are rounded otherwise keep other tokens.

  Args:
    network: a `Network` that computes in float32.
    programs: the `Programs` of an artifact of it.
    name: name of the format, for the error.
    execution: see `reference`.

  Returns:
    The largest difference between logits.

  Raises:
    InputError: logits, kept patches or, if returned, tokens or sources differ.
  """
  images = sample_images(network.arch.image_size)
  # Moves to the current default device.
  network = network.with_params(jax.device_get(network.params))
  expected, largest = None, 0.0
  for size, program in programs.by_size.items():
    size = size or len(images)
    for start in range(0, len(images), size):
      rows = np.arange(start, start + size) % len(images)
      logits, kept, *features = (np.asarray(array) for array in program(images[rows]))
      if expected is None:
        expected = _expected(network, images, bool(features), execution)
        if not expected["certain"].any():
          log(f"{name}: not compared, as rounding decides what this network keeps of every sample")
      certain = expected["certain"][rows]
      differ = (kept != expected["kept"][rows]).any(axis=-1) & certain
      error = np.abs(logits - expected["logits"][rows])[certain].max(initial=0.0)
      largest = max(largest, float(error))
      wrong, lost = 0.0, 0.0
      if features:
        names = output_names(network, True)[2:]
        found = dict(zip(names, features, strict=True))
        wrong = _wrong_tokens(found["tokens"], found["positions"], expected, rows)
        if "sources" in found:
          lost = _wrong_sources(found["sources"], expected, rows)
      near = error <= TOLERANCE and wrong <= TOLERANCE and lost <= _TIED
      if differ.any() or not near:
        raise InputError(
          f"the reloaded {name} artifact differs from the network (batch of {size}: "
          f"logits differ by {error:.2g}, tokens by {wrong:.2g}, {int(differ.sum())} images keep "
          f"other tokens, {lost:.2g} of the patches have other sources): nothing was exported; "
          "please report this with the versions of `pip list`"
        )
  return largest


def _expected(network, images, tokens, execution):
  """`reference`, on the host; `certain` only for images of which rounding decides nothing."""
  expected = jax.device_get(reference(network, images, tokens, execution))
  for seed in range(_ROUNDED if network.prunes else 0):
    rng = np.random.default_rng(seed)

    def rounded(a, rng=rng):
      return a * (1 + _ROUNDING * rng.standard_normal(a.shape).astype(a.dtype))

    params = jax.tree.map(rounded, network.params)
    other = reference(network.with_params(params), images, tokens, execution)
    same = (np.asarray(other["keep"]) == expected["keep"]).all(axis=(1, 2))
    expected["certain"] = expected["certain"] & same
  return expected


@functools.partial(jax.jit, static_argnames=("tokens", "execution"))
@usual
def reference(network, images, tokens=False, execution=None):
  """The outputs of a network in memory for images.

  Args:
    network: a `Network`.
    images: (b, s, s, 3) uint8.
    tokens: whether to return its tokens.
    execution: "fixed"; by default, and for packed, masked or dense, to which packed is equal.

  Returns:
    Dictionary of `logits` (b, classes), `kept` (b, stages), `keep` (b, stages, n), and `certain`
    (b,) bool, whether no score of an image is so close to its threshold that rounding decides; with
    `tokens` also `tokens` (b, 1 + n, d), `positions` (b, 1 + n) and, where known, `sources` (b, n),
    as in `Outputs`.
  """
  if execution in (None, "packed"):
    execution = "masked" if network.prunes else "dense"
  outputs = network.apply(images, execution, tokens)
  certain = jnp.ones(len(images), bool)
  if network.prunes:
    before = jnp.concatenate([jnp.ones_like(outputs.keep[:, :1]), outputs.keep[:, :-1]], axis=1)
    if execution != "fixed":
      near = jnp.abs(outputs.scores - network.params["thresholds"][:, None]) < _NEAR
      certain = ~(near & (before > 0)).any(axis=(1, 2))
    # Selection by rank: rounding matters if the lowest kept score is close to the highest dropped
    # one.
    if execution == "fixed" or network.arch.count_multiple > 1:
      least = jnp.where(outputs.keep > 0, outputs.scores, jnp.inf).min(axis=-1)
      rest = jnp.where(before > outputs.keep, outputs.scores, -jnp.inf).max(axis=-1)
      certain &= (least - rest >= _NEAR).all(axis=1)
  found = {name: getattr(outputs, name) for name in output_names(network, tokens)}
  return found | {"certain": certain, "keep": outputs.keep}


def _wrong_tokens(tokens, positions, expected, rows):
  """The largest difference between tokens at equal positions, relative to their magnitude.

  Infinite if the sets of positions differ.

  Args:
    tokens: (b, 1 + n, d) tokens of a program.
    positions: (b, 1 + n) positions of a program.
    expected: result of `reference`.
    rows: (b,) indices of the images in `expected`.
  """
  largest = 0.0
  for found, at, row in zip(tokens, positions, rows, strict=True):
    if not expected["certain"][row]:
      continue
    rows_of = {p: i for i, p in enumerate(expected["positions"][row].tolist()) if p >= 0}
    if sorted(at[at >= 0].tolist()) != sorted(rows_of):
      return np.inf
    wanted = expected["tokens"][row][[rows_of[p] for p in at[at >= 0].tolist()]]
    difference = np.abs(found[at >= 0] - wanted).max() / max(1.0, np.abs(wanted).max())
    largest = max(largest, float(difference))
  return largest


def _wrong_sources(sources, expected, rows):
  """The share of patches with other sources; infinite if others are dropped, or kept.

  Args:
    sources: (b, n) sources of a program.
    expected: result of `reference`.
    rows: (b,) indices of the images in `expected`.
  """
  certain = expected["certain"][rows]
  found, wanted = sources[certain], expected["sources"][rows][certain]
  itself = np.arange(wanted.shape[1]) + expected["positions"].shape[1] - wanted.shape[1]
  for kind in (wanted < 0, wanted == itself):
    if (found[kind] != wanted[kind]).any():
      return np.inf
  if ((found < 0) != (wanted < 0)).any():
    return np.inf
  return float((found != wanted).mean()) if found.size else 0.0


def sample_images(size):
  """(8, height, width, 3) uint8 images: several kinds of noise, a gradient, black and white."""
  height, width = height_width(size)
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (3, height, width, 3))
  coarse = np.kron(
    rng.integers(0, 256, (2, 7, 7, 3)), np.ones((1, -(-height // 7), -(-width // 7), 1))
  )
  gradient = np.linspace(0, 255, height)[None, :, None, None]
  gradient = np.broadcast_to(gradient, (1, height, width, 3))
  flat = np.stack([np.zeros((height, width, 3)), np.full((height, width, 3), 255)])
  images = [noise, coarse[:, :height, :width], gradient, flat]
  return np.concatenate(images).astype(np.uint8)
