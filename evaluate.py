"""The command `asvit evaluate` from a checkout: `python evaluate.py --help`."""

from asvit_jax.commands import run

if __name__ == "__main__":
  run("evaluate")
