"""The command `asvit export` from a checkout: `python export.py --help`."""

from asvit_jax.commands import run

if __name__ == "__main__":
  run("export")
