"""The command `asvit measure` as a module: `python -m asvit_jax.measure`."""

from asvit_jax.commands import run

if __name__ == "__main__":
  run("measure")
