"""The command `asvit train` from a checkout: `python train.py --help`."""

from asvit_jax.commands import run

if __name__ == "__main__":
  run("train")
