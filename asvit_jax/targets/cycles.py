"""The cycles that a TPU's compiler schedules a program with: its own model, not a measurement.

Its text says them of most operations. They rank programs for one chip. What a chip waits for the
host is not in them, nor Pallas kernels, of which the compiler says none.
"""

import re

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_OPERATION = re.compile(r"= .*? ([a-z][\w\-]*)\(")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=(%?[\w.\-]+)")


def count(text):
  """The cycles of one run of a program.

  A loop counts as often as the compiler knows that it runs, or once; of a conditional, its dearest
  branch.

  Args:
    text: of the program, compiled for a TPU.
  """
  computations, entry, name = {}, None, None
  for line in text.splitlines():
    if head := _COMPUTATION.match(line):
      name = head.group(2)
      computations[name] = []
      entry = name if head.group(1) else entry
    elif name is not None and _OPERATION.search(line):
      computations[name].append(line)
  return _sum(computations, entry)


def _sum(computations, name):
  return sum(_of_line(computations, line) for line in computations[name])


def _of_line(computations, line):
  found = _CYCLES.search(line)
  cycles = float(found.group(1)) if found else 0.0
  operation = _OPERATION.search(line).group(1)
  if operation == "while":
    trips = _TRIPS.search(line)
    body = _sum(computations, _called(line, "body"))
    return cycles + (float(trips.group(1)) if trips else 1.0) * body
  if operation == "conditional":
    branches = ",".join(many or one for many, one in _BRANCHES.findall(line)).split(",")
    return cycles + max(_sum(computations, b.strip().lstrip("%")) for b in branches)
  if operation == "call":
    return cycles + _sum(computations, _called(line, "to_apply"))
  return cycles


def _called(line, attribute):
  return re.search(rf"{attribute}=%?([\w.\-]+)", line).group(1)
