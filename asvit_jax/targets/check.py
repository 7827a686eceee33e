"""Compiles steps, evaluation and packed inference for TPUs and GPUs, which need not be here.

python -m asvit_jax.targets.check --out runs/targets.jsonl --only "v5e:1x1 as_deit_s.*pmap"

Programs whose results are in the file already are not compiled again, so an interrupted run
continues where it stopped.
"""

import json
import re

from absl import flags

from asvit_jax.core import command, outputs, schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log

# The values of a line of the file that are read here.
_NUMBERS = ("images", "memory_mb", "memory_available_mb", "compile_s", "compile_cpu_s")
_ROW = schema.table(
  {name: schema.number() for name in _NUMBERS}
  | {name: schema.text() for name in ("target", "recipe", "program")}
  | {"fits": schema.BOOLEAN},
  required=("target", "recipe", "program", "fits", *_NUMBERS),
)

RECIPES = ("as_deit_s:0.65", "as_lvvit_s:0.7")
STEPS = ("pmap", "shard_map")
IMAGES_A_STEP = 64  # per device, so 512 over eight
IMAGES_AN_EVALUATION = 32
PACKED = (1, 64, 256)  # images per device

# One chip, one host of eight chips, sixteen hosts of four; another generation; GPUs.
TARGETS = ("tpu:v5e:1x1", "tpu:v5e:2x4", "tpu:v5e:8x8", "tpu:v6e:2x4", "gpu:h100", "gpu:h100:8")
# Programs for one device are compiled once per kind of device.
ONE_DEVICE = ("tpu:v5e:1x1", "tpu:v6e:1x1", "gpu:h100")


def define_flags():
  """Defines the flags; not at import, where they would clash with the flags of other tools."""
  outputs.define("out", "runs/targets.jsonl", "File that gets one line of JSON per program.")
  flags.DEFINE_string("only", "", "Regular expression: only the checks whose names it matches.")


def main(_):
  """Compiles the programs of all checks that are not in the file.

  Returns:
    Dictionary of `out`, the number of `checks`, and `ok`, whether all programs fit.

  Raises:
    InputError: --only matches no check, or the file is damaged.
  """
  from asvit_jax.targets import chips, process

  path = storage.path(flags.FLAGS.out)
  lines = storage.read(path).splitlines() if path.exists() else []
  known = [schema.loads(line, _ROW, f"--out {path}", "give another file") for line in lines]
  done = {name_of(row): row for row in known}
  chosen = [c for c in all_checks() if re.search(flags.FLAGS.only, name_of(c))]
  if not chosen:
    raise InputError(
      f"--only {flags.FLAGS.only!r} matches no check, such as {name_of(all_checks()[0])!r}"
    )
  for i, check in enumerate(chosen, 1):
    if name_of(check) in done:
      continue
    log(f"{i}/{len(chosen)}  {name_of(check)}")
    answer = process.run({"what": "check"} | check, chips.parse_target(check["target"]))
    done[name_of(check)] = check | answer
    storage.write(path, "".join(json.dumps(row) + "\n" for row in done.values()), "the checks")
  rows = [done[name_of(check)] for check in chosen]
  log(f"\n{table(rows)}")
  return {"out": str(path), "checks": len(rows), "ok": all(row["fits"] for row in rows)}


def table(rows):
  """The results, a list of lines of the file, as a Markdown table."""
  lines = ["| target | network | program | images a device | MiB a device | of | compiled in |"]
  lines.append("|---|---|---|---|---|---|---|")
  lines += [
    f"| {row['target']} | {row['recipe']} | {row['program']} | {row['images']} "
    f"| {row['memory_mb']:,.0f} | {row['memory_available_mb']:,.0f} "
    f"| {row['compile_s']:,.0f} s ({row['compile_cpu_s']:,.0f} s of CPU) |"
    for row in rows
  ]
  return "\n".join(lines)


def all_checks():
  """All checks, a list of dictionaries: `target`, `recipe`, `program` and `images` per device."""
  found = []
  for recipe in RECIPES:
    found += [_check(t, recipe, step, IMAGES_A_STEP) for t in TARGETS for step in STEPS]
    found += [_check(t, recipe, "evaluation", IMAGES_AN_EVALUATION) for t in ONE_DEVICE]
    found += [_check(t, recipe, "packed", images) for t in ONE_DEVICE for images in PACKED]
  return found


def name_of(check):
  """The name of a check, such as "tpu:v5e:1x1 as_deit_s:0.65 pmap 64"."""
  return "{target} {recipe} {program} {images}".format(**check)


def compile_one(target, recipe, program, images):
  """Compiles the program of one check in bfloat16; runs in the process of `process.run`.

  Args:
    target: a `chips.Target`.
    recipe: name and argument of a recipe, "NAME:ARGUMENT".
    program: "pmap" or "shard_map", for a training step; "evaluation" or "packed".
    images: images per device.

  Returns:
    Dictionary of `compiling.account_for`.
  """
  from asvit_jax.config.plan import unchecked
  from asvit_jax.core import recipes
  from asvit_jax.targets import compiling, programs

  config = recipes.load(*recipe.split(":"))
  config.model.dtype = "bfloat16"
  config.batch_size = config.eval.batch_size = images * target.devices
  if program in STEPS:
    config.parallel = program
  # The number of steps only changes the schedule of the learning rate.
  plan = unchecked(config).of_images(1_000_000)
  network, devices = programs.untrained(plan), compiling.devices(target)
  if program in STEPS:
    built = programs.step_program(plan, network, devices)
  elif program == "evaluation":
    built = programs.evaluation_program(plan, network, "masked", devices)
  else:
    built = programs.inference_program(network, "packed", images, plan.budget, devices[0])
  return compiling.account_for(f"{recipe} {program}", built, target, plan.model.dtype)


def _check(target, recipe, program, images):
  return {"target": target, "recipe": recipe, "program": program, "images": images}


if __name__ == "__main__":
  define_flags()
  command.run(main)
