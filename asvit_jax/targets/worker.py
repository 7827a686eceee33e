"""What runs in the process of `process.run`: a job as JSON on stdin, its result on stdout.

A job has `target`, its name, and `what`, a name of `_JOBS`, with what that needs.
"""

import json
import sys

from absl import flags

from asvit_jax.core.errors import InputError
from asvit_jax.targets import names


def main():
  """Does the job; bad input is the result's `error`."""
  flags.FLAGS.mark_as_parsed()  # libraries below read absl's flags
  try:
    job = json.load(sys.stdin)
  except ValueError:
    sys.exit("error: this is the process behind --target, and no tool")
  try:
    result = _JOBS[job.pop("what")](target=names.parse(job.pop("target")), **job)
  except InputError as error:
    result = {"error": str(error)}
  print(json.dumps(result), flush=True)


def _training(target, config):
  from asvit_jax.config import base
  from asvit_jax.targets.training import compile_run

  described = base()
  described.update(config)
  return compile_run(described, target)


def _inference(target, architecture, **rest):
  from asvit_jax.targets.inference import compile_inference
  from asvit_jax.vit import Architecture

  return compile_inference(target, Architecture.from_json(architecture, "the job"), **rest)


def _check(target, **check):
  from asvit_jax.targets.checking import compile_one

  return compile_one(target, **check)


def _times(target, architecture, **rest):
  from asvit_jax.targets.times import compile_parts
  from asvit_jax.vit import Architecture

  return compile_parts(target, Architecture.from_json(architecture, "the job"), **rest)


_JOBS = {"training": _training, "inference": _inference, "check": _check, "times": _times}

if __name__ == "__main__":
  main()
