"""`asvit` as a module: `python -m asvit_jax COMMAND …`."""

from asvit_jax.commands import main

if __name__ == "__main__":
  main()
