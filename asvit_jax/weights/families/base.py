"""`Family`, a naming scheme of tensors and its translation to timm's."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# Prefixes that PyTorch's parallel and compiled modules add to names.
WRAPPER = re.compile(r"^(module\.|_orig_mod\.)+")
# Parts of a layer that are joined, in this order, and the name of the whole beside theirs.
_JOINED = {("q", "k", "v"): ".qkv", ("gate", "up"): ""}
_NUMBER = "[0-9]+"
_LEAVES = ("weight", "bias", "running_mean", "running_var")


def _nothing_more(tensors, prefix):
  return {}


def _all_read(tensors, prefix):
  return ()


def _as_it_is(name, value):
  return value


@dataclasses.dataclass(frozen=True)
class Family:
  """A naming scheme for the tensors of a vision transformer.

  Attributes:
    title: name of the family, for display.
    marker: the tensor name that identifies the family; every file of it has it once per network.
    table: {module or tensor: timm's}, `{}` for the number of a block. Three entries whose timm
      names end in `.q`, `.k` and `.v` are joined to one, `.qkv`; those of `.gate` and `.up` to one
      without. Those of the attention pooling become `attn_pool.q` and `attn_pool.kv`, and so does
      `attn_pool.in_proj`.
    unneeded: regular expressions that match the full names of tensors a classifier does not need:
      decoders, mask tokens, projection heads. These are dropped, and the log lists them.
    unread: function of (tensors, prefix) that returns more such expressions, for a network that
      holds layers that its own prediction leaves out.
    leaves: {last part of a name: timm's}.
    separator: separator between the parts of a name.
    layout: function of (timm's name, array) that returns the array in timm's layout.
    preprocessing: default preprocessing if a file states none; {} for the package's defaults.
    prepares: function of (tensors, prefix) that returns more defaults of the preprocessing.
    facts: {field of `Architecture`: value} that hold for the whole family, and no tensor shows.
    seen: function of (tensors, prefix) that returns more facts.
    optional: parts that may be missing in all blocks of a network: "k.bias", which becomes 0;
      "gate", without which `.up` is the whole layer.
    spread: function of tensors that returns them before names are translated, such as one tensor
      per block if a file stacks them.
    ours: whether the names are timm's already: names missing in the table then pass through, as
      they may belong to another stem.
  """

  title: str
  marker: str
  table: Mapping[str, str]
  unneeded: tuple[str, ...] = ()
  unread: Callable[[Mapping[str, Any], str], tuple[str, ...]] = _all_read
  leaves: Mapping[str, str] = dataclasses.field(default_factory=dict)
  separator: str = "."
  layout: Callable[[str, np.ndarray], np.ndarray] = _as_it_is
  preprocessing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  seen: Callable[[Mapping[str, Any], str], dict[str, Any]] = _nothing_more
  optional: tuple[str, ...] = ()
  prepares: Callable[[Mapping[str, Any], str], dict[str, Any]] = _nothing_more
  spread: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] = dict
  ours: bool = False

  def prefixes(self, tensors):
    """The prefixes of the names, one for each network in the file; [] for another family."""
    marker = self.marker
    ends = [name for name in tensors if name == marker or name.endswith(self.separator + marker)]
    return [name.removesuffix(marker) for name in ends]

  def translate(self, tensors, prefix):
    """Tensors in timm's names, and the names of those that were dropped.

    Names missing in the table are kept unchanged: the strict check then lists them. Tensors outside
    the network's prefix, such as those of a loss or a metric beside `model.`, are dropped.
    """
    found, origin, left_out = {}, {}, []
    tensors = self.spread(tensors)
    before = _beginnings(prefix)
    beside = self._beside(tensors, before)
    unneeded = self._unneeded(tensors, prefix)
    for name, value in tensors.items():
      short = _short(name, before)
      if _matches(unneeded, short):
        left_out.append(name)
        continue
      theirs = self._timms(short)
      if name in beside:
        left_out.append(name)
        continue
      new = theirs or (short if self.ours else name)
      if new in found:  # two names for one tensor: the strict check reports both
        new = f"{name} beside {origin[new]}"
      found[new] = value if theirs is None else self.layout(theirs, value)
      origin[new] = name
    return _pooling(_joined(found, origin, self.optional)), left_out

  def needed(self, tensors, prefix):
    """The tensors without those of `unneeded` and `unread`."""
    before, unneeded = _beginnings(prefix), self._unneeded(tensors, prefix)
    return {k: v for k, v in tensors.items() if not _matches(unneeded, _short(k, before))}

  def _unneeded(self, tensors, prefix):
    """Expressions for names without the prefix, of the tensors that a classifier does not need."""
    return (*self.unneeded, *self.unread(tensors, prefix))

  def _beside(self, tensors, before):
    """The names outside the network's prefix, if all of the network's names have the prefix.

    If the head is outside, other layers of the network may be, too; the strict check lists them.
    """
    own = [b for b in before if WRAPPER.fullmatch(b) is None]
    if not own:
      return frozenset()
    beside = {name for name in tensors if not name.startswith(own[-1])}
    known = any(self._timms(_short(name, before)) is not None for name in beside)
    return frozenset() if known else beside

  def _timms(self, name):
    """Timm's name of a tensor; None if the table does not have it."""
    if name in self.table:
      return self.table[name]
    if "{" in name:  # would match the table's placeholder
      return None
    module, _, leaf = name.rpartition(self.separator)
    numbers = re.findall(_NUMBER, module)
    # The first number is the block's; the table spells out all other numbers.
    pattern = re.sub(_NUMBER, "{}", module, count=1)
    leaf = self.leaves.get(leaf, leaf)
    for key in (module, pattern):
      if key in self.table and leaf in _LEAVES:
        return f"{self.table[key].format(*numbers)}.{leaf}"
    whole = re.sub(_NUMBER, "{}", name, count=1)
    return self.table[whole].format(*re.findall(_NUMBER, name)) if whole in self.table else None


def holds(tensors, prefix, name):
  """Whether a tensor is there, under the network's prefix or any shorter one.

  Args:
    tensors: {name: array}.
    prefix: the network's prefix.
    name: name of the tensor without a prefix, such as that of a head outside of the network.
  """
  return any(f"{before}{name}" in tensors for before in (*_beginnings(prefix), ""))


def _matches(patterns, short):
  return any(re.fullmatch(pattern, short) for pattern in patterns)


def _short(name, before):
  return next((name.removeprefix(b) for b in before if name.startswith(b)), name)


def _beginnings(prefix):
  """A prefix and its own prefixes, the longest first: a head may stand outside of it."""
  return [prefix[: match.end()] for match in re.finditer(r"[./]", prefix)][::-1]


def _joined(tensors, origin, optional):
  """Joins query, key and value, and gate and up; if one is missing, they keep their own names."""
  known = (("k.bias", ".attn.k.bias"), ("gate", ".mlp.fc1.gate."))
  absent = {p for p, of in known if p in optional and not any(of in name for name in tensors)}
  joined = {}
  for name, value in tensors.items():
    module, _, leaf = name.rpartition(".")
    stem, _, part = module.rpartition(".")
    parts = next((parts for parts in _JOINED if part in parts), None)
    if parts is None or not stem.startswith("blocks."):
      joined[name] = value
      continue
    whole = f"{stem}{_JOINED[parts]}.{leaf}"
    each = {p: tensors.get(f"{stem}.{p}.{leaf}") for p in parts if p not in absent}
    if "k" in each and f"k.{leaf}" in absent:
      each["k"] = np.zeros_like(value)
    pieces = list(each.values())
    if any(tensor is None for tensor in pieces) or not _alike(pieces) or whole in tensors:
      joined[origin[name]] = value
    elif whole not in joined:
      joined[whole] = np.concatenate(pieces)
  return joined


def _pooling(tensors):
  """Splits and joins the projections of an attention pooling to timm's; others stay."""
  found = dict(tensors)
  for leaf in ("weight", "bias"):
    whole = found.get(f"attn_pool.in_proj.{leaf}")
    if whole is not None and whole.ndim in (1, 2) and len(whole) % 3 == 0:
      del found[f"attn_pool.in_proj.{leaf}"]
      width = len(whole) // 3
      found |= {f"attn_pool.q.{leaf}": whole[:width], f"attn_pool.kv.{leaf}": whole[width:]}
    two = [found.get(f"attn_pool.{part}.{leaf}") for part in "kv"]
    if all(tensor is not None for tensor in two) and _alike(two):
      del found[f"attn_pool.k.{leaf}"], found[f"attn_pool.v.{leaf}"]
      found[f"attn_pool.kv.{leaf}"] = np.concatenate(two)
  return found


def _alike(tensors):
  """Whether all tensors have the same shape, that of a layer's weight or bias."""
  return tensors[0].ndim in (1, 2) and len({tensor.shape for tensor in tensors}) == 1
