"""Tables of times, kept from one process to the next.

A file each in `latency/` of the directory that `ASVIT_CACHE` names, by default
`$XDG_CACHE_HOME/asvit_jax` or `~/.cache/asvit_jax`, under a name made of all that the times depend
on. What cannot be read or written there is measured anew, with a warning.
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
_VERSION = 3  # of what is measured, and how
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
    batch: images a batch.
  """

  def measured():
    log(f"measuring what parts of the network take on this device, batch {batch}: half a minute")
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
  """The `Table` of a network on a device: that of before, or what `make()` returns, kept from now.

  Args:
    network: as for `table.measure_table`.
    batch: images a batch.
    device: dictionary for JSON: `platform`, its name in JAX, and all else of the device, and of
      what compiles for it, that times depend on.
    make: function of nothing that returns the `Table`.
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
  if not os.path.isabs(caches):  # the specification ignores others
    caches = "~/.cache"
  return storage.path(caches) / "asvit_jax" / "latency"


def _path(key):
  """Where the table of a key is kept; None, with a warning, where it can be nowhere."""
  name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
  try:
    return directory() / f"{name}.json"
  except InputError as error:
    log(f"warning: times are not kept ({on_a_line(error)}): set {VARIABLE} to a directory")
    return None


def _load(path, key, arch):
  """The table at a path; None where there is none, or with a warning where it is none."""
  try:
    content = storage.read(path, _MOST_BYTES)
    values = schema.loads(content, _FILE, str(path), "it is measured anew", _MOST_BYTES)
    if values["key"] != key:
      raise InputError(f"{path}: it is of something else: it is measured anew")
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
    log(f"warning: times kept of before cannot be used: {on_a_line(error)}")
    return None
  log(f"what parts of the network take on {values['device']} is known: {path}")
  estimated, of = "target" in key, {name: key[name] for name in ("architecture", "dtype")}
  ms = values["dense"], values["call"]
  return Table(values["device"], key["platform"], estimated, of, key["batch"], *ms, curves)


def _check(path, curves, key, arch):
  """Raises InputError for curves that are not those of an architecture."""
  needed = {*PARTS} if arch.prune_inside else {*_ALWAYS}
  fits = {each.group for each in curves} == {*key["groups"].values()} and all(
    each.widths == widths(arch)
    and needed <= each.parts.keys()
    and all(len(row) == len(each.widths) for row in each.parts.values())
    for each in curves
  )
  if not fits:
    raise InputError(f"{path}: its widths or parts are not the network's: it is measured anew")


def _save(path, key, found):
  curves = [vars(each) for each in found.curves]
  values = {"key": key, "curves": curves}
  values |= {name: getattr(found, name) for name in ("device", "dense", "call")}
  try:
    storage.write(path, json.dumps(values, indent=1) + "\n")
  except (OSError, InputError) as error:
    log(f"warning: the times of {found.device} are not kept: {on_a_line(error)}")
