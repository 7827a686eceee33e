"""A cache of tables of times on disk.

Each table is a file in the subdirectory `latency/` of the directory `ASVIT_CACHE`, by default
`$XDG_CACHE_HOME/asvit_jax` or `~/.cache/asvit_jax`. Its name is a hash of everything that the times
depend on. If a file cannot be read or written, a warning says so, and the times are measured again.
"""

import hashlib
import json
import os

import jax

from asvit_jax.core import schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line
from asvit_jax.core.progress import log
from asvit_jax.pacing.running import group_sizes
from asvit_jax.pacing.table import PARTS, Curves, Table, describe_network, measure_table, widths

VARIABLE = "ASVIT_CACHE"
_VERSION = 3  # of the measurement: increase it when the same part is measured differently
_MOST_BYTES = 1 << 20
_MS = schema.number(1e-9, 1e9)
_ALWAYS = ("block", "stage", "decide", "last")
_ROW = schema.array(_MS, 1, 1000)
_CURVES = schema.table(
  {
    "group": schema.integer(1),
    "embed": _MS,
    "widths": schema.array(schema.integer(1), 1, 1000),
    "parts": schema.table(dict.fromkeys(PARTS, _ROW), _ALWAYS, others=False),
  },
  ("group", "embed", "widths", "parts"),
)
_FILE = schema.table(
  {
    "key": schema.table(),
    "device": schema.text(200),
    "dense": _MS,
    "call": schema.number(0, 1e9),
    "curves": schema.array(_CURVES, 1, 10),
  },
  ("key", "device", "dense", "call", "curves"),
)


def load_or_measure(network, batch):
  """The `Table` of a network on this device, from the cache or measured now.

  Args:
    network: as for `table.measure_table`.
    batch: images per batch.
  """

  def measured():
    log(f"timing the parts of the network on this device, batch {batch}: about half a minute")
    return measure_table(network, batch)

  device, affinity = jax.devices()[0], getattr(os, "sched_getaffinity", None)
  of = {
    "platform": device.platform,
    "device": device.device_kind,
    "cpus": len(affinity(0)) if affinity else os.cpu_count(),
    "jax": jax.__version__,
    "xla_flags": os.environ.get("XLA_FLAGS", ""),
    "precision": str(jax.config.jax_default_matmul_precision),
  }
  return load_or_make(network, batch, of, measured)


def load_or_make(network, batch, device, make):
  """The `Table` of a network on a device, from the cache, or else from `make()` and then cached.

  Args:
    network: as for `table.measure_table`.
    batch: images per batch.
    device: dictionary for JSON: `platform`, JAX's name of it, and everything else about the device
      and its compiler that times depend on.
    make: function without arguments that returns the `Table`.
  """
  sizes = group_sizes(network.arch, batch, device["platform"])
  of = {**device, **describe_network(network), "batch": batch, "groups": sizes}
  key = {"version": _VERSION, **of}
  path = _path(key)
  found = None if path is None else _load(path, key, network.arch)
  if found is None:
    found = make()
    if path is not None:
      _save(path, key, found)
  return found


def directory():
  """The directory of the tables; raises InputError where there is no home directory."""
  given = os.environ.get(VARIABLE)
  if given:
    return storage.path(given) / "latency"
  caches = os.environ.get("XDG_CACHE_HOME", "")
  if not os.path.isabs(caches):  # the XDG specification says to ignore relative paths
    caches = "~/.cache"
  return storage.path(caches) / "asvit_jax" / "latency"


def _path(key):
  """The file of a key's table; None, with a warning, if there is no cache directory."""
  name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
  try:
    return directory() / f"{name}.json"
  except InputError as error:
    log(f"warning: times are not cached ({on_a_line(error)}): set {VARIABLE} to a directory")
    return None


def _load(path, key, arch):
  """The table in a file; None if there is no file, or, with a warning, if it is invalid."""
  try:
    content = storage.read(path, _MOST_BYTES)
    values = schema.loads(content, _FILE, str(path), "measuring again", _MOST_BYTES)
    if values["key"] != key:
      raise InputError(f"{path}: it has times of something else: measuring again")
    curves = tuple(
      Curves(
        each["group"],
        each["embed"],
        tuple(each["widths"]),
        {part: tuple(row) for part, row in each["parts"].items()},
      )
      for each in values["curves"]
    )
    _check(path, curves, key, arch)
  except FileNotFoundError:
    return None
  except (OSError, InputError) as error:
    log(f"warning: cached times cannot be used: {on_a_line(error)}")
    return None
  log(f"using cached times of the network's parts on {values['device']}: {path}")
  estimated, of = "target" in key, {name: key[name] for name in ("architecture", "dtype")}
  ms = values["dense"], values["call"]
  return Table(values["device"], key["platform"], estimated, of, key["batch"], *ms, curves)


def _check(path, curves, key, arch):
  """Raises InputError for curves that do not fit an architecture."""
  needed = {*PARTS} if arch.prune_inside else {*_ALWAYS}
  fits = {each.group for each in curves} == {*key["groups"].values()} and all(
    each.widths == widths(arch)
    and needed <= each.parts.keys()
    and all(len(row) == len(each.widths) for row in each.parts.values())
    for each in curves
  )
  if not fits:
    raise InputError(f"{path}: its widths or parts do not fit the network: measuring again")


def _save(path, key, found):
  curves = [vars(each) for each in found.curves]
  values = {"key": key, "curves": curves}
  values |= {name: getattr(found, name) for name in ("device", "dense", "call")}
  try:
    storage.write(path, json.dumps(values, indent=1) + "\n")
  except (OSError, InputError) as error:
    log(f"warning: the times of {found.device} are not cached: {on_a_line(error)}")
