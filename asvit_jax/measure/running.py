"""Runs the parts of a measurement in their time, and keeps what they found in a file."""

import hashlib
import importlib.metadata
import json
import pathlib
import statistics
import threading
import time

import jax

import asvit_jax
from asvit_jax.core import schema, stopping, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.plain import plain
from asvit_jax.core.progress import log
from asvit_jax.measure import page
from asvit_jax.measure.parts import Skipped

NAME = "measure.json"
_LOOK_S, _THREAD = 0.2, "measuring"
_MEASURED = schema.table(
  {
    "machine": schema.table(others=schema.ANY),
    "parts": schema.table(others=schema.table({"status": schema.text()}, required=("status",))),
  },
  required=("machine", "parts"),
)


def run(directory, parts, seconds, quick):
  """Runs the parts that the file of a directory does not have yet, most valuable first.

  The file and the page are written after each part. A part that runs when the time is over is
  abandoned: the process then ends without waiting for it.

  Args:
    directory: directory of the file and the page.
    parts: list of `Part`s.
    seconds: seconds that they may take together.
    quick: whether these are the quick settings.

  Returns:
    The measurements as a dictionary for JSON: `machine`; `parts`, {name: `kind`, what it is of,
    `status` ("done", "skipped", "failed" or "unfinished"), `seconds`, `result` or `reason`};
    `correct`, whether every execution and backend agrees with masked, None where some were not
    compared; and `peak_memory_mb`, the largest of the parts, if the device says it.

  Raises:
    InputError: the file is damaged, or of another machine or version.
  """
  path = storage.path(directory) / NAME
  here = _machine(quick)
  found = _earlier(path, here)
  end = time.monotonic() + seconds
  missing = [part for part in parts if found.get(part.name, {}).get("status") != "done"]
  if len(missing) < len(parts):
    log(f"{len(parts) - len(missing)} of {len(parts)} parts are in {path} already")
  for i, part in enumerate(missing, 1):
    left = end - time.monotonic()
    needs = _needs(part, found)
    entry = {"kind": part.kind, "of": part.of}
    if left < needs:
      reason = f"it needs about {needs:.0f} s, and {max(left, 0):.0f} s were left"
      found[part.name] = entry | {"status": "skipped", "reason": reason}
      continue
    log(f"{i}/{len(missing)}  {part.name}  ({left:.0f} s left)")
    found[part.name] = entry | _run_one(part, end)
    _write(path, here, parts, found)
  measured = _write(path, here, parts, found)
  if any(thread.name == _THREAD for thread in threading.enumerate()):
    stopping.end_at_exit(1 if measured["correct"] is False else 0)
  return measured


def _run_one(part, end):
  """Runs a part in a thread, until the time `end`; returns `status` and what belongs to it."""
  start, answer = time.monotonic(), {}

  def work():
    try:
      answer.update(status="done", result=part.run())
    except Skipped as error:
      answer.update(status="skipped", reason=str(error))
    except Exception as error:  # also of a compiler or a device: other parts still run
      said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
      log(f"{part.name} failed: {said}")
      answer.update(status="failed", reason=said)

  thread = threading.Thread(target=work, name=_THREAD, daemon=True)
  thread.start()
  while thread.is_alive() and time.monotonic() < end:
    thread.join(_LOOK_S)
  seconds = time.monotonic() - start
  if thread.is_alive():
    return {"status": "unfinished", "reason": f"the time was over after {seconds:.0f} s"}
  peak = _peak_memory_mb()
  return answer | {"seconds": seconds} | ({} if peak is None else {"peak_memory_mb": peak})


def _needs(part, found):
  """Seconds that must be left to begin a part: the median of those of its kind, at least its own.

  Correctness matters most: it begins as long as there is any hope.
  """
  if part.kind == "correctness":
    return part.least_s
  took = [one["seconds"] for one in found.values() if one.get("kind") == part.kind and _done(one)]
  return max(part.least_s, statistics.median(took)) if took else part.least_s


def _done(one):
  return one["status"] == "done"


def _write(path, machine, parts, found):
  """Writes the file and the page; returns the measurements."""
  entries = {part.name: found[part.name] for part in parts if part.name in found}
  entries |= {
    part.name: {"kind": part.kind, "of": part.of, "status": "missing"}
    for part in parts
    if part.name not in found
  }
  measured = {"machine": machine, "parts": {part.name: entries[part.name] for part in parts}}
  measured["correct"] = correct(measured)
  peaks = [one["peak_memory_mb"] for one in found.values() if "peak_memory_mb" in one]
  if peaks:
    measured["peak_memory_mb"] = max(peaks)
  measured = plain(measured)
  storage.write(path, json.dumps(measured, indent=1, allow_nan=False) + "\n", "the measurements")
  page.write(path.parent, measured)
  return measured


def correct(measured):
  """Whether all that was compared agrees; None if it does, but some of it was not compared."""
  compared = [one for one in measured["parts"].values() if one["kind"] == "correctness"]
  rows = [row for one in compared if _done(one) for row in one["result"]]
  if any(row.get("agrees") is False for row in rows) or any(
    one["status"] == "failed" for one in compared
  ):
    return False
  return True if compared and all(map(_done, compared)) else None


def _earlier(path, machine):
  """{name: entry} of the parts in the file; {} if there is none."""
  if not path.exists():
    return {}
  advice = "give another directory with --out, or remove the file"
  measured = schema.loads(storage.read(path), _MEASURED, f"{path}", advice)
  before = measured["machine"]
  differ = [key for key, value in machine.items() if before.get(key) != value]
  if differ and before.get("quick") is machine["quick"] is True:
    log(f"{path} is of another machine or version, and of quick settings: beginning anew")
    return {}
  if differ:
    was, now = (one.get(differ[0]) for one in (before, machine))
    raise InputError(
      f"{path} has measurements of another machine or version ({differ[0]} {was!r}, here {now!r}): "
      f"{advice}"
    )
  return measured["parts"]


def _machine(quick):
  """What the measurements are of; only with the same can they be continued."""
  device = jax.devices()[0]
  versions = {}
  for name in ("jax", "jaxlib", "libtpu"):
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return {
    "device": device.device_kind,
    "platform": device.platform,
    "devices": jax.device_count(),
    **versions,
    "source": _source(),
    "quick": quick,
  }


def _source():
  """A digest of the package's Python files."""
  root, digest = pathlib.Path(asvit_jax.__file__).parent, hashlib.sha256()
  for file in sorted(root.rglob("*.py")):
    digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
  return digest.hexdigest()[:12]


def _peak_memory_mb():
  stats = jax.local_devices()[0].memory_stats() or {}
  peak = stats.get("peak_bytes_in_use")
  return None if peak is None else peak / 2**20
