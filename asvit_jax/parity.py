"""The command `asvit parity` as a module: `python -m asvit_jax.parity`."""

from asvit_jax.commands import run

if __name__ == "__main__":
  run("parity")
