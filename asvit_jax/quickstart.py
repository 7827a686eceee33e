"""The command `asvit quickstart` as a module: `python -m asvit_jax.quickstart`."""

from asvit_jax.commands import run

if __name__ == "__main__":
  run("quickstart")
