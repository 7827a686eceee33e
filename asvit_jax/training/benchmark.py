"""Shows that making batches, bringing them to the devices and computing on them overlap.

python -m asvit_jax.training.benchmark

Each is made the slowest in turn, by sleeping; the last line says what a step of a run took then.
Figures are in docs/benchmarks.md.
"""

from absl import flags

from asvit_jax.core import command

# Seconds of (data, transfer, step).
_CASES = {
  "slow data": (0.2, 0.05, 0.05),
  "slow transfer": (0.05, 0.2, 0.05),
  "slow step": (0.05, 0.05, 0.2),
  "data as slow as the step": (0.2, 0.05, 0.2),
}


def define_flags():
  """The flags of the command line; not at import, where they would meet those of other tools."""
  flags.DEFINE_integer("steps", 40, "Steps to time of each case.", lower_bound=4)


def main(_):
  """Measures; returns the figures."""
  from asvit_jax.training.overlap import measure

  return {name: measure(*case, flags.FLAGS.steps) for name, case in _CASES.items()}


if __name__ == "__main__":
  define_flags()
  command.run(main)
