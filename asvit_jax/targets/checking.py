"""The programs that `check` compiles, one at a time."""

from asvit_jax.core import recipes
from asvit_jax.targets import account, programs, topology

RECIPES = ("as_deit_s:0.65", "as_lvvit_s:0.7")
STEPS = ("pmap", "shard_map")
IMAGES_A_STEP = 64  # of a device; 512 over eight
IMAGES_AN_EVALUATION = 32
PACKED = (1, 64, 256)

# One chip, a host of eight, and sixteen hosts of four; another generation; GPUs.
TARGETS = ("tpu:v5e:1x1", "tpu:v5e:2x4", "tpu:v5e:8x8", "tpu:v6e:2x4", "gpu:h100", "gpu:h100:8")
# What needs one device is compiled once for each kind of them.
ONE_DEVICE = ("tpu:v5e:1x1", "tpu:v6e:1x1", "gpu:h100")


def all_of_them():
  """The checks: dictionaries of `target`, `recipe`, `program` and `images` of a device."""
  found = []
  for recipe in RECIPES:
    found += [_check(t, recipe, step, IMAGES_A_STEP) for t in TARGETS for step in STEPS]
    found += [_check(t, recipe, "evaluation", IMAGES_AN_EVALUATION) for t in ONE_DEVICE]
    found += [_check(t, recipe, "packed", images) for t in ONE_DEVICE for images in PACKED]
  return found


def name(check):
  """A check in words."""
  return "{target} {recipe} {program} {images}".format(**check)


def compile_one(target, recipe, program, images):
  """Compiles one of them in bfloat16; returns what `account.compiled` says.

  Args:
    target: a `names.Target`.
    recipe: name and argument of a recipe.
    program: "pmap" or "shard_map", a step of training; "evaluation" or "packed".
    images: of a device.
  """
  config = recipes.load(*recipe.split(":"))
  config.model.dtype = "bfloat16"
  config.batch_size = config.eval.batch_size = images * target.devices
  network, devices = programs.untrained(config), topology.devices(target)
  if program in STEPS:
    config.parallel = program
    # What the learning rate falls to after so many steps is no matter.
    built = programs.step(config, network, 1000, devices)
  elif program == "evaluation":
    built = programs.evaluation(config, network, "masked", devices)
  else:
    built = programs.inference(network, "packed", images, config.budget, devices[0])
  return account.compiled(f"{recipe} {program}", built, target, config.model.dtype)


def _check(target, recipe, program, images):
  return {"target": target, "recipe": recipe, "program": program, "images": images}
