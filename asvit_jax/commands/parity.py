"""Compares this implementation with reference numbers of the authors' PyTorch code.

asvit parity tests/golden/deit_parity.npz

Ends with one line of JSON: the largest errors and `"ok"`; exit status 1 if the numbers differ.
"""

from asvit_jax.core.progress import log

ARGUMENTS = (1, 1)


def define_flags():
  """Defines no flags."""


def main(arguments):
  """Compares with one file; returns the errors as a dictionary."""
  from asvit_jax.reference.check import TOLERANCES, check

  errors = check(arguments[0])
  for name, tolerance in TOLERANCES.items():
    log(f"{name:12} {errors[name]:.2e}  allowed {tolerance:g}")
  return errors
