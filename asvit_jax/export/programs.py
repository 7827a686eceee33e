"""The programs inside artifacts: functions of parameters and images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core import leaves
from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.executions import EXECUTIONS, fixed_count, in_place, pieces
from asvit_jax.sparsity.pruning import Pruning

PLATFORMS = ("cpu", "cuda", "tpu")
BATCH_SIZES = (1, 32)
OUTPUTS = ("logits", "kept")
# Further outputs, with `tokens`; sources only where they are known, see `Outputs`.
FEATURES = ("tokens", "positions", "sources")
_PACKED = "packed_"
# Not split to fit a cache: the number of images is unknown when the program is written.
_UNCUT = {"dense": in_place.dense, "masked": in_place.masked, "fixed": fixed_count.fixed}


def programs(network, batch_sizes, tokens=False, execution=None):
  """The programs of an artifact of a network.

  Args:
    network: a `Network` that computes in float32.
    batch_sizes: batch sizes of the packed programs; a network without thresholds has none.
    tokens: whether the programs return `FEATURES`, too.
    execution: as for `program_for_any_number`. With "fixed" there are no packed programs: they
      keep other tokens, and the tokens kept of an image must not depend on the batch size.

  Returns:
    {name: (program, its batch size or None for any)}. A program is a function of {flat name:
    parameter}, see `flat_params`, and (b, s, s, 3) uint8 images. It returns a dictionary of
    `logits` (b, classes) and `kept` (b, stages), with `tokens` also of `tokens` (b, 1 + n, d),
    `positions` (b, 1 + n) and, if known, `sources` (b, n); a token is 0 where its position is -1.
    See `Outputs`.
  """
  name, any_number = program_for_any_number(network, tokens, execution)
  found = {name: (any_number, None)}
  if name == "masked":
    packed = _program(network, functools.partial(EXECUTIONS["packed"], tokens=tokens), tokens)
    found |= {f"{_PACKED}{size}": (packed, size) for size in batch_sizes}
  return found


def program_for_any_number(network, tokens=False, execution=None):
  """The name and the program, as in `programs`, that takes any number of images.

  Args:
    network: see `programs`.
    tokens: see `programs`.
    execution: "masked" or "fixed" for a network that prunes; by default masked if it prunes, else
      dense.
  """
  name = execution or execution_for_any_number(network)
  # Dense and masked always return tokens.
  more = {"fixed": {"tokens": tokens}, "masked": {"follows": tokens}}.get(name, {})
  return name, _program(network, functools.partial(_UNCUT[name], **more), tokens)


def execution_for_any_number(network, execution=None):
  """The execution of an artifact, for any number of images; "packed" for one image at a time.

  Args:
    network: a `Network`.
    execution: one that `Format.check_options` has accepted; by default masked if the network
      prunes, else dense.

  Raises:
    InputError: the network does not have it.
  """
  name = execution or ("masked" if network.prunes else "dense")
  network.check_execution(name)
  return name


def pieces_for_one_image(network, tokens=False):
  """The packed program for one image in pieces; see `sparsity.executions.pieces`.

  Args:
    network: a `Network` with thresholds that computes in float32.
    tokens: see `programs`.

  Returns:
    List of functions, one more than there are stages. The first takes (1, s, s, 3) uint8 images,
    the others what the one before returned and the rows of its true `keep`. The last returns the
    dictionary of a program, see `programs`; the others `pieces.Scored`.
  """
  last = network.arch.stages - 1

  @usual
  def first(images):
    return pieces.start(network.model, network.preprocessing.normalize(images), tokens)

  def between(index):
    return lambda scored, rows: pieces.go_on(network.model, index, scored, rows)

  @usual
  def final(scored, rows):
    return _results(pieces.finish(network.model, scored, rows, tokens), tokens)

  return [first, *map(between, range(last)), final]


def output_names(network, tokens):
  """The names of the outputs of a `Network`'s programs, in order; `tokens` as for `programs`."""
  known = not network.prunes or Pruning.of(network.arch).traces
  features = FEATURES if known else tuple(name for name in FEATURES if name != "sources")
  return (*OUTPUTS, *features) if tokens else OUTPUTS


def names_among(found):
  """The names of outputs that are in a container, in order."""
  return tuple(name for name in (*OUTPUTS, *FEATURES) if name in found)


def meaningful(outputs):
  """(b, 1 + n, d) tokens of `Outputs`, with 0 in the rows of removed tokens."""
  return jnp.where(outputs.positions[..., None] >= 0, outputs.tokens, 0.0)


def batch_size(name):
  """The batch size in the name of a program; None if it takes any."""
  return int(name.removeprefix(_PACKED)) if name.startswith(_PACKED) else None


def flat_params(network):
  """{name of a leaf: NumPy array} of a network's parameters."""
  return {name: np.asarray(leaf) for name, leaf in leaves.named(network.params)}


def _program(network, execution, tokens):
  structure = jax.tree.structure(network.params)
  names = [name for name, _ in leaves.named(network.params)]

  @usual
  def program(flat, images):
    params = jax.tree.unflatten(structure, [flat[name] for name in names])
    images = network.preprocessing.normalize(images)
    return _results(execution(network.with_params(params).model, images), tokens)

  return program


def _results(outputs, tokens):
  results = {"logits": outputs.logits, "kept": outputs.kept}
  if tokens:
    results |= {"tokens": meaningful(outputs), "positions": outputs.positions}
    results |= {} if outputs.sources is None else {"sources": outputs.sources}
  return results
