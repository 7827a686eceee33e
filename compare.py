"""The command `asvit compare` from a checkout: `python compare.py --help`."""

from asvit_jax.commands import run

if __name__ == "__main__":
  run("compare")
