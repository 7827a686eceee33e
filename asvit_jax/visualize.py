"""The command `asvit visualize` as a module: `python -m asvit_jax.visualize`."""

from asvit_jax.commands import run

if __name__ == "__main__":
  run("visualize")
