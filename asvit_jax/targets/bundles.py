"""Estimates flat execution on a TPU that is not here, from what its compiler schedules.

python -m asvit_jax.targets.bundles --target tpu:v5e:1x1 --variant deit_s --batch 64

A TPU issues one bundle of instructions a cycle, and its compiler can say how many it scheduled for
a kernel. That is a lower bound: what a kernel waits for its copies is not included. For operations
of XLA it is the compiler's estimate of their cycles, see `times.count_cycles`. Nothing is run.
"""

import dataclasses
import functools
import os
import re
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import flags

from asvit_jax.core import command, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log

# Cores of a device, which share its images and its rows.
CORES = {"v4": 2, "v5p": 2}
# Standard deviation of the patches that an image keeps, as a share of the mean: that of DeiT-T's
# first stage. Images that keep many at one stage are taken to keep many at all.
SPREAD = 0.17
BUDGETS = (0.65, 0.5)

_FILE = re.compile(r"\d+-(.+?)(?:\.\d+)?-\d+-schedule-analysis_final_bundles\.txt")
_TOTAL = re.compile(r"total scheduled bundles:\s*(\d+)")


def define_flags():
  """Defines the flags; not at import, where they would clash with the flags of other tools."""
  flags.DEFINE_string("target", "tpu:v5e:1x1", "TPU to compile for.")
  flags.DEFINE_string("variant", "deit_s", "Name of the network.")
  flags.DEFINE_string("reduction", "drop", "What stages do with removed tokens: drop or merge.")
  flags.DEFINE_string("dtype", "bfloat16", "Compute type.")
  flags.DEFINE_integer("batch", 64, "Images of a batch.", lower_bound=1)


def main(_):
  """Estimates dense and flat execution of a network.

  Returns:
    Dictionary of `kernels`, see `of_kernels`; `estimates`, {program: dictionary of `xla_ms`,
    `kernels_ms`, `ms` and `compile_s`}; and the arguments.

  Raises:
    InputError: the network or the target is none that the kernels cover, or the compiler is not
      installed.
  """
  from asvit_jax.sparsity.executions.flat_tpu import TPU
  from asvit_jax.targets import process, times
  from asvit_jax.vit import VARIANTS

  asked = flags.FLAGS
  if asked.variant not in VARIANTS:
    raise InputError(f"--variant {asked.variant}: expected one of {', '.join(VARIANTS)}")
  arch = VARIANTS[asked.variant]
  if asked.reduction == "merge":
    arch = merging(arch)
  reason = TPU().refuses(arch, np.dtype(asked.dtype))
  if reason:
    raise InputError(f"--variant {asked.variant}: the kernels do not run it, as {reason}")
  target = times.tpu_target(asked.target)
  job = {"architecture": arch.to_json(), "dtype": asked.dtype}
  log("compiling the kernels")
  kernels = process.run({"what": "bundles"} | job, target)
  estimates = {}
  for program in ("dense", "dense on rows", "flat"):
    log(f"compiling {program}, {asked.batch} images")
    more = {"what": "cycles", "program": program, "batch": asked.batch}
    estimates |= estimated(process.run(job | more, target), program, kernels, arch, target)
  for name, row in estimates.items():
    log(f"{name}: {row['ms']:.2f} ms, of which kernels {row['kernels_ms']:.2f}")
  given = {name: asked[name].value for name in ("target", "variant", "reduction", "dtype", "batch")}
  return given | {"kernels": kernels, "estimates": estimates}


def merging(arch):
  """An architecture whose stages merge tokens, as the recipes do."""
  return dataclasses.replace(
    arch, score="merge_cost", reduction="merge_tokens", score_exponents=(0.5, 1.0, 1.0, 1.0)
  )


def estimated(compiled, program, kernels, arch, target):
  """The estimates of a program: one, or for flat execution one for each of `BUDGETS`."""
  found, batch = {}, compiled["batch"]
  arch = arch if program == "flat" else arch.dense
  xla_ms = 1e3 * compiled["cycles"] / target.chip.clock
  for budget in BUDGETS if program == "flat" else (None,):
    of_kernels = 0.0
    if program != "dense":
      cycles = kernel_cycles(kernels, arch, tokens_of(arch, batch, budget))
      of_kernels = 1e3 * cycles / target.chip.clock / CORES.get(target.kind, 1)
    name = program if budget is None else f"{program} at {budget:.0%}"
    found[name] = {
      "xla_ms": xla_ms,
      "kernels_ms": of_kernels,
      "ms": xla_ms + of_kernels,
      "compile_s": compiled["compile_s"],
    }
  return found


def tokens_of(arch, batch, budget=None):
  """(batch, stages + 1) tokens of every image after each stage, the first row before them all.

  Args:
    arch: an `Architecture`.
    batch: number of images.
    budget: share of the dense GMACs; None for a network that keeps all tokens.
  """
  from asvit_jax.sparsity import complexity, schedule

  kept = np.full((batch, arch.stages + 1), arch.patches)
  if budget is not None:
    arch = schedule.with_stage_weights(arch, budget)
    ratio = complexity.uniform_ratio(arch, complexity.target_gmacs(arch, budget))
    mean = np.array(schedule.uniform_counts(arch, ratio))
    drawn = 1 + SPREAD * np.random.default_rng(0).standard_normal((batch, 1))
    drawn += 1 - drawn.mean()
    kept[:, 1:] = np.clip(np.round(mean * drawn), 1, arch.patches)
  return kept + arch.prefix_tokens


def kernel_cycles(kernels, arch, tokens):
  """The bundles of all kernels of a forward pass.

  Args:
    kernels: the dictionary of `of_kernels`.
    arch: an `Architecture`.
    tokens: (images, stages + 1), see `tokens_of`.
  """
  from asvit_jax.sparsity.executions.flat_rows import aligned
  from asvit_jax.sparsity.kernels import tpu_embedding

  ends = (*arch.prune_before, arch.depth - 1)
  blocks = np.diff(
    (0, *ends)
  )  # the last one runs for the tokens that are read, after the last stage

  def tiles(section):
    return -(-int(aligned(tokens[:, section]).sum()) // kernels["tile"])

  def of_images(name, section):
    by_width = dict(kernels[name])
    widths = np.array(sorted(by_width))
    chosen = widths[np.searchsorted(widths, aligned(tokens[:, section]))]
    return sum(by_width[int(width)] for width in chosen)

  last = len(blocks) - 1
  total, parts = 0, ("norm_linear", "linear_residual", "mlp_residual")
  for section, count in enumerate(blocks):
    a_tile = sum(kernels[name] for name in parts)
    scored = int(section < last)
    total += count * tiles(section) * a_tile + (count - scored) * of_images("attend", section)
    total += scored * of_images("scored", section)
  groups, rest = divmod(len(tokens), tpu_embedding.IMAGES)
  columns = -(-arch.width // tpu_embedding.LANES)
  total += len(tokens) * kernels["padded"] if rest else groups * columns * kernels["embedded"]
  total += sum(of_images("compact", section + 1) for section in range(last))
  if arch.reduction != "drop":
    total += sum(of_images("merges", section) for section in range(last))
  return total + tiles(last) * kernels["norm_linear"] + of_images("read", last)


def of_kernels(target, arch, dtype):
  """Compiles the kernels for a TPU; runs in the process of `process.run`, before libtpu is loaded.

  Args:
    target: a `chips.Target`.
    arch: an `Architecture`.
    dtype: compute type.

  Returns:
    Dictionary of `tile`, the rows of a tile; and of the bundles that kernels schedule:
    `norm_linear`, `linear_residual` and `mlp_residual` for a tile; `embedded`, before the first
    block, for 128 columns of eight images, or `padded` for an image; and for an image with up to
    `width` tokens, lists of [width, bundles]: `attend`, for all queries, `scored`, the same with
    attention scores, and `read`, for the first queries, all with a bias if the network merges;
    `merges` before a stage, and `compact` after it.
  """
  with tempfile.TemporaryDirectory() as directory:
    given = os.environ.get("LIBTPU_INIT_ARGS", "")
    os.environ["LIBTPU_INIT_ARGS"] = (
      f"{given} --xla_jf_dump_to={directory} --xla_jf_dump_llo_text=true"
    )
    return _of_kernels(target, arch, dtype, Path(directory))


def _of_kernels(target, arch, dtype, directory):
  import jax
  import jax.numpy as jnp

  from asvit_jax.sparsity.executions import flat_rows
  from asvit_jax.sparsity.kernels import (
    tpu_attention,
    tpu_compaction,
    tpu_copies,
    tpu_embedding,
    tpu_merging,
    tpu_rows,
  )
  from asvit_jax.targets import compiling

  here = jax.sharding.SingleDeviceSharding(compiling.devices(target)[0])

  def shape(*sizes, dtype=dtype):
    return jax.ShapeDtypeStruct(sizes, jnp.dtype(dtype), sharding=here)

  def linear(rows, columns):
    return tpu_rows.Linear(shape(rows, columns), shape(columns, dtype="float32"))

  def scheduled(name, function, *arguments):
    for path in directory.iterdir():
      storage.remove(path)
    jax.jit(function).lower(*arguments).compile()
    return read_bundles(directory)[name]

  d, images = arch.width, 8
  widest = int(flat_rows.aligned(arch.prefix_tokens + arch.patches))
  channels = tpu_attention.LANES * tpu_attention.pairs_of(arch.heads)
  x, total = shape(8 * tpu_rows.TILE, d), shape(dtype="int32")
  vector = shape(d, dtype="float32")
  norm = tpu_rows.Norm(vector, vector)
  found = {"tile": tpu_rows.TILE}
  found["norm_linear"] = scheduled(
    "norm_linear",
    lambda *a: tpu_rows.norm_linear(*a, epsilon=arch.norm_epsilon),
    *(x, total, norm, linear(d, 3 * channels)),
  )
  found["linear_residual"] = scheduled(
    "linear_residual",
    tpu_rows.linear_residual,
    *(x, shape(8 * tpu_rows.TILE, channels), total, linear(channels, d), vector),
  )
  found["mlp_residual"] = scheduled(
    "mlp_residual",
    lambda *a: tpu_rows.mlp_residual(*a, epsilon=arch.norm_epsilon, activation=arch.activation),
    *(x, total, norm, linear(d, arch.hidden), linear(arch.hidden, d), vector),
  )
  starts = (shape(images, dtype="int32"), shape(images, dtype="int32"))
  merged = arch.reduction != "drop"
  kinds = {"attend": {}, "scored": {"scores": True}, "read": {"first": flat_rows.ALIGN}}
  for name, options in kinds.items():
    found[name] = []
    for width in tpu_attention.widths_to(widest):
      attend = functools.partial(
        tpu_attention.attend, heads=arch.heads, width=width, widths=(width,), **options
      )
      bias = [shape(images, width, dtype="float32")] if merged else []
      bundles = scheduled(
        "scored" if name == "scored" else "attend",
        attend,
        *(shape(images * width, 3 * channels), *starts, *bias),
      )
      found[name].append([width, bundles])
  rows = images * widest
  found["merges"] = []
  for width in tpu_merging.widths_to(widest):
    row = shape(images, width, dtype="float32")
    bundles = scheduled(
      "merges",
      lambda *a, width=width: tpu_merging.merges(
        *a,
        exponents=merging(arch).score_exponents,
        prefix=arch.prefix_tokens,
        widths=(width,),
      ),
      *(shape(images * width, d), *starts, row, row),
      *(shape(images, width, dtype="int32"), shape(dtype="float32")),
    )
    found["merges"].append([width, bundles])
  all_tokens = arch.prefix_tokens + arch.patches
  found["padded"] = scheduled("padded", tpu_copies.padded, shape(images, all_tokens, d))
  found["embedded"] = scheduled(
    "embedded",
    tpu_embedding.embedded,
    *(shape(arch.patches, images, d), shape(arch.prefix_tokens, d), shape(all_tokens, d)),
  )
  found["compact"] = []
  for width in tpu_compaction.widths_to(widest):
    bundles = scheduled(
      "compact",
      lambda *a, width=width: tpu_compaction.compact(*a, widths=(width,)),
      *(shape(rows, d), starts, starts, shape(images, widest, dtype="int32")),
      *([shape(images, widest, dtype="float32")] if merged else []),
    )
    found["compact"].append([width, bundles])
  return found


def read_bundles(directory):
  """{kernel: bundles} from the files that libtpu wrote into a directory."""
  found = {}
  for path in sorted(directory.iterdir()):
    name = _FILE.fullmatch(path.name)
    if name and (total := _TOTAL.search(path.read_text())):
      found[name.group(1)] = int(total.group(1))
  return found


def cycles_of(target, arch, dtype, program, batch):
  """Compiles a forward pass for a TPU; runs in the process of `process.run`.

  Args:
    target: a `chips.Target`.
    arch: an `Architecture` that prunes.
    dtype: compute type.
    program: "dense", as it runs by default; "dense on rows", by the kernels; or "flat".
    batch: number of images.

  Returns:
    Dictionary of `cycles`, of all operations but kernels; `compile_s`; and `batch`.
  """
  import jax
  import jax.numpy as jnp

  from asvit_jax import vit
  from asvit_jax.data.preprocessing import Preprocessing
  from asvit_jax.sparsity.executions import EXECUTIONS, flat, flat_tpu
  from asvit_jax.targets import compiling, times

  here = jax.sharding.SingleDeviceSharding(compiling.devices(target)[0])
  params = vit.rounded(vit.specs(arch if program == "flat" else arch.dense), dtype)
  images = jax.ShapeDtypeStruct((batch, *arch.image_shape), jnp.uint8)
  shapes = jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), (params, images)
  )

  def forward(params, images):
    model = vit.model(arch, params, dtype=dtype)
    images = Preprocessing().normalize(images)
    if program == "dense on rows":
      return flat.dense(model, images, flat_tpu.TPU())
    return EXECUTIONS[program](model, images).logits

  start = time.perf_counter()
  text = jax.jit(forward).lower(*shapes).compile().as_text()
  seconds = time.perf_counter() - start
  return {"cycles": times.count_cycles(text), "compile_s": seconds, "batch": batch}


if __name__ == "__main__":
  define_flags()
  command.run(main)
