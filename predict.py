"""The command `asvit predict` from a checkout: `python predict.py --help`."""

from asvit_jax.commands import run

if __name__ == "__main__":
  run("predict")
