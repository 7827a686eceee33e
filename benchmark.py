"""The command `asvit benchmark` from a checkout: `python benchmark.py --help`."""

from asvit_jax.commands import run

if __name__ == "__main__":
  run("benchmark")
