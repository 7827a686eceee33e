"""Times of the parts of a network on a device, as functions of the number of tokens.

Several blocks are timed in a row, each with its own weights, on as many images as the executions
run at once, so that the processor's caches behave as in inference. All parts, and the whole dense
network, are timed in turn, and the median is taken.
"""

import dataclasses
import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core.progress import Progress, log
from asvit_jax.core.promotion import usual
from asvit_jax.core.turns import in_turn
from asvit_jax.pacing.running import forward_of, group_sizes
from asvit_jax.sparsity.executions import packed
from asvit_jax.sparsity.executions.fixed_count import predict_from_tokens, rows_of_mask
from asvit_jax.sparsity.gates import keep_best
from asvit_jax.sparsity.pruning import Pruning, Stage

WIDTHS, LEAST = 7, 16  # measured widths, and the smallest: one step of packed execution
ROUNDS = 7
_IN_A_ROW = 4  # blocks timed in a row
_LEAST_MS = 1e-4  # for a part that takes no longer than an empty call
PARTS = ("block", "attended", "fed_forward", "stage", "decide", "last")
# Fields of an architecture on which no time depends.
_NO_MATTER = ("prune_before", "stage_weights", "count_elementwise")


@dataclasses.dataclass(frozen=True)
class Curves:
  """Times of the parts of a network for a number of images at once.

  Attributes:
    group: the number of images.
    embed: ms of the stem.
    widths: numbers of tokens, ascending, including class and distillation tokens.
    parts: {part: ms at each width}. `block` is a block; `attended` and `fed_forward` are its halves
      if stages are inside of blocks; `stage` is a stage of fixed execution, which scores, reduces
      and gathers the tokens left; `decide` is a stage of packed execution; `last` is the last
      block, only for the tokens that the heads read, and the heads.
  """

  group: int
  embed: float
  widths: tuple[int, ...]
  parts: dict[str, tuple[float, ...]]

  def at(self, part, width):
    """Milliseconds of a part, interpolated between widths, and made monotonic in the width.

    Args:
      part: a name of `PARTS`.
      width: number of tokens, or an array of them.
    """
    return np.interp(width, self.widths, np.maximum.accumulate(self.parts[part]))


@dataclasses.dataclass(frozen=True)
class Table:
  """Times of a network on a device.

  Attributes:
    device: name of the device.
    platform: JAX's name of its platform: "cpu", "gpu" or "tpu".
    estimated: whether the times are a compiler's estimates instead of measurements.
    network: description of the network, see `describe_network`.
    batch: images per batch.
    dense: ms per batch of the dense network, as inference runs it.
    call: ms of calling an empty program, which the times of the parts exclude.
    curves: one `Curves` for each number of images that an execution runs at once.
  """

  device: str
  platform: str
  estimated: bool
  network: dict
  batch: int
  dense: float
  call: float
  curves: tuple[Curves, ...]

  def of(self, group):
    """The `Curves` for a number of images at once."""
    return next(curves for curves in self.curves if curves.group == group)


def widths(arch):
  """The numbers of tokens to measure, ascending; the last is the unpruned number."""
  tokens = arch.prefix_tokens + arch.patches
  least = min(LEAST, max(arch.prefix_tokens + 1, tokens // 4))
  return tuple(np.unique(np.linspace(least, tokens, WIDTHS).round().astype(int)).tolist())


def describe_network(network):
  """Everything about a `Network` that times depend on, as a dictionary for JSON."""
  architecture = {k: v for k, v in network.arch.to_json().items() if k not in _NO_MATTER}
  return {"architecture": architecture, "dtype": network.dtype}


def programs(network, batch, platform):
  """The parts of a network, as functions to compile.

  Args:
    network: a `Network` whose architecture has the stages; its thresholds are not read.
    batch: images per batch.
    platform: JAX's name of the platform to compile for.

  Returns:
    {(images at once, part, number of tokens): (function, its arguments)}; the stem is the part
    "embed" of 0 tokens.
  """
  arch, found = network.arch, {}
  for group in sorted(set(group_sizes(arch, batch, platform).values())):
    images = jnp.zeros((group, *arch.image_shape), jnp.uint8)  # on the device already
    found[group, "embed", 0] = _embed, (network, images)
    for width in widths(arch):
      found |= {(group, *key): call for key, call in _parts(network, group, width).items()}
  return found


def curves_of(arch, ms):
  """The `Curves` of an `Architecture`, from the ms of its `programs`."""
  return tuple(_curves(arch, group, ms) for group in sorted({group for group, _, _ in ms}))


def measure_table(network, batch, rounds=ROUNDS):
  """Measures the `Table` of a network for a batch size; each part is compiled once.

  Args:
    network: as for `programs`.
    batch: images per batch.
    rounds: number of times that each part is timed.
  """
  platform = jax.default_backend()
  images = jnp.zeros((batch, *network.arch.image_shape), jnp.uint8)
  whole = {"dense": (forward_of("dense"), (network, images)), "call": (_nothing, (network, images))}
  functions = whole | programs(network, batch, platform)
  progress, calls = Progress("compiling parts, programs", len(functions)), {}
  for done, (key, (function, arguments)) in enumerate(functions.items(), 1):
    program = jax.jit(function).lower(*arguments).compile()
    calls[key] = functools.partial(_run_program, program, arguments)
    calls[key]()
    progress.update(done)
  ms = {key: 1e3 * statistics.median(times) for key, times in in_turn(calls, rounds).items()}
  dense, call = ms.pop("dense"), ms.pop("call")
  ms = {key: max(time - call, _LEAST_MS) for key, time in ms.items()}
  log(f"the dense network takes {dense:.1f} ms for {batch} images")
  device, of = jax.devices()[0].device_kind, describe_network(network)
  return Table(device, platform, False, of, batch, dense, call, curves_of(network.arch, ms))


def _run_program(program, arguments):
  jax.block_until_ready(program(*arguments))


def _curves(arch, group, ms):
  found, at = {}, widths(arch)
  row = {"block": _row(arch), "attended": _row(arch), "fed_forward": _row(arch)}
  for part in PARTS:
    if (group, part, at[0]) in ms:
      found[part] = tuple(ms[group, part, width] / row.get(part, 1) for width in at)
  return Curves(group, ms[group, "embed", 0], at, found)


def _row(arch):
  return min(_IN_A_ROW, arch.depth)


def _parts(network, group, width):
  """{(part, width): (function, its arguments)} at a number of tokens."""
  arch = network.arch
  noise = np.random.default_rng(0).standard_normal((group, width, arch.width))
  x = jnp.asarray(noise, network.dtype)
  stage = jax.jit(_before_stage)(network, x)
  # As an argument: XLA would otherwise see that all sizes are 1, and optimize them away.
  sizes = Pruning.of(arch).first_sizes(group, width)
  functions = {"block": _blocks, "last": _last}
  if arch.prune_inside:
    functions |= {"attended": _attended, "fed_forward": _fed_forward}
  found = {part: (function, (network, x, sizes)) for part, function in functions.items()}
  pruned = network.with_thresholds(np.zeros(arch.stages))
  found |= {"stage": (_stage, (network, stage)), "decide": (_decide, (pruned, stage))}
  return {(part, width): call for part, call in found.items()}


def _nothing(network, images):
  del network
  return images[0, 0, 0]


@usual
def _embed(network, images):
  return network.model.embed(network.preprocessing.normalize(images))


@usual
def _blocks(network, x, sizes):
  for block in network.model.blocks[: _row(network.arch)]:
    x, _ = block(x, _attend(network.arch, x, sizes))
  return x


@usual
def _attended(network, x, sizes):
  for block in network.model.blocks[: _row(network.arch)]:
    x, _ = block.attended(x, _attend(network.arch, x, sizes))
  return x


@usual
def _fed_forward(network, x, sizes):
  del sizes
  for block in network.model.blocks[: _row(network.arch)]:
    x = block.fed_forward(x)
  return x


@usual
def _last(network, x, sizes):
  return predict_from_tokens(network.model, x, _attend(network.arch, x, sizes), sizes).logits


@usual
def _before_stage(network, x):
  """The input of a stage: the `Stage` after the first block's attention."""
  pruning = Pruning.of(network.arch)
  x, cache = network.model.blocks[0].attended(x, _attend(network.arch, x))
  present = jnp.ones(x.shape[:2], jnp.float32)
  places = None
  if pruning.rope is not None:  # of the first tokens, see `_attend`
    places = jnp.asarray(pruning.rope.places()[: x.shape[1]], jnp.float32)
    places = jnp.broadcast_to(places, (len(x), *places.shape))
  return Stage(x, pruning.first_sizes(*x.shape[:2]), present, cache, places)


@usual
def _stage(network, stage):
  """A stage of fixed execution that keeps two thirds of the patches."""
  pruning, count = Pruning.of(network.arch), _two_thirds(network.arch, stage)
  stage = dataclasses.replace(stage, present=jnp.ones(stage.present.shape, jnp.float32))
  similarity = pruning.similarity(stage)
  keep = keep_best(pruning.scores(stage, similarity), stage.present, count)
  rows, gone = rows_of_mask(keep, count), rows_of_mask(~keep, keep.shape[1] - count)
  keep = keep.astype(jnp.float32)
  return (
    *pruning.compact(stage, keep, rows, similarity, gone),
    pruning.moved(stage, keep, similarity, rows, gone),
  )


@usual
def _decide(network, stage):
  """A stage of packed execution, after which a group continues with two thirds of the patches."""
  count = _two_thirds(network.arch, stage)
  rows = packed.apply_stage(network.model, 0, stage)
  n = rows.keep.shape[1]
  if Pruning.of(network.arch).compacts:
    return rows._replace(x=rows.x[:, :count], sizes=rows.sizes[:, :count])
  source = jnp.sort(jnp.where(rows.keep, jnp.arange(n), n - 1), axis=1)[:, :count]
  x = jnp.take_along_axis(rows.x, source[..., None], axis=1)
  sizes = rows.sizes
  return rows._replace(
    x=x, sizes=None if sizes is None else jnp.take_along_axis(sizes, source, axis=1)
  )


def _two_thirds(arch, stage):
  """The number of tokens that are left if a stage keeps two thirds of the patches."""
  return arch.prefix_tokens + 2 * (stage.x.shape[1] - arch.prefix_tokens) // 3


def _attend(arch, x, sizes=None):
  """The attention function of (b, n, d) tokens, which stand for the first n of an image."""
  pruning = Pruning.of(arch)
  rotation = pruning.rotation(jnp.arange(x.shape[1])[None])
  return functools.partial(pruning.dense, sizes=sizes, rotation=rotation)
