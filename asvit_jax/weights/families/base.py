"""What families of weights are made of."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# What PyTorch's parallel and compiled modules put before the names of those that they hold.
WRAPPER = re.compile(r"^(module\.|_orig_mod\.)+")
_PARTS = ("q", "k", "v")
_NUMBER = "[0-9]+"
_LEAVES = ("weight", "bias", "running_mean", "running_var")


def _nothing_more(tensors, prefix):
  return {}


def _as_it_is(name, value):
  return value


@dataclasses.dataclass(frozen=True)
class Family:
  """A way to name the tensors of a vision transformer.

  Attributes:
    title: for people.
    marker: the one name that gives it away, which every file of the family has once.
    table: {module or tensor: timm's}, `{}` for the number of a block. Three whose timm's names end
      in `.q`, `.k` and `.v` are joined to one, `.qkv`.
    unneeded: regular expressions of whole names of what a classifier does not need: decoders,
      mask tokens, projection heads. It is left out, and said.
    leaves: {last part of a name: timm's}.
    separator: between the parts of a name.
    layout: function of (timm's name, array) that returns the array in timm's layout.
    preprocessing: usual for it, where a file says nothing; {} for the package's defaults.
    facts: {field of `Architecture`: value} that hold for all of it, and no tensor shows.
    seen: function of (tensors, prefix) that returns more facts.
    ours: whether timm's names are its own: what the table lacks may be of a stem from elsewhere.
  """

  title: str
  marker: str
  table: Mapping[str, str]
  unneeded: tuple[str, ...] = ()
  leaves: Mapping[str, str] = dataclasses.field(default_factory=dict)
  separator: str = "."
  layout: Callable[[str, np.ndarray], np.ndarray] = _as_it_is
  preprocessing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  seen: Callable[[Mapping[str, Any], str], dict[str, Any]] = _nothing_more
  ours: bool = False

  def prefixes(self, tensors):
    """What stands before the names, once for each network there; [] for another family."""
    marker = self.marker
    ends = [name for name in tensors if name == marker or name.endswith(self.separator + marker)]
    return [name.removesuffix(marker) for name in ends]

  def translate(self, tensors, prefix):
    """Tensors in timm's names, and the names of those that were left out.

    Names that the table does not have stay what they are: the strict check says which they are.
    Those of what holds the network, such as a loss or a metric beside `model.`, are left out.
    """
    found, origin, left_out = {}, {}, []
    before = _beginnings(prefix)
    beside = self._beside(tensors, before)
    for name, value in tensors.items():
      short = _short(name, before)
      if any(re.fullmatch(pattern, short) for pattern in self.unneeded):
        left_out.append(name)
        continue
      theirs = self._timms(short)
      if name in beside:
        left_out.append(name)
        continue
      new = theirs or (short if self.ours else name)
      if new in found:  # two names for one tensor: the strict check names both
        new = f"{name} beside {origin[new]}"
      found[new] = value if theirs is None else self.layout(theirs, value)
      origin[new] = name
    return _joined(found, origin), left_out

  def _beside(self, tensors, before):
    """The names that do not begin as the network's do, where all of the network's begin so.

    Where its head stands outside, so may a layer between the two, and the strict check names it.
    """
    own = [b for b in before if WRAPPER.fullmatch(b) is None]
    if not own:
      return frozenset()
    beside = {name for name in tensors if not name.startswith(own[-1])}
    known = any(self._timms(_short(name, before)) is not None for name in beside)
    return frozenset() if known else beside

  def _timms(self, name):
    """Timm's name of a tensor; None for one that the table does not have."""
    if name in self.table:
      return self.table[name]
    if "{" in name:  # what the table has in place of a number
      return None
    module, _, leaf = name.rpartition(self.separator)
    numbers = re.findall(_NUMBER, module)
    # The first number is that of the block; what else has numbers, the table spells out.
    pattern = re.sub(_NUMBER, "{}", module, count=1)
    leaf = self.leaves.get(leaf, leaf)
    for key in (module, pattern):
      if key in self.table and leaf in _LEAVES:
        return f"{self.table[key].format(*numbers)}.{leaf}"
    whole = re.sub(_NUMBER, "{}", name, count=1)
    return self.table[whole].format(*re.findall(_NUMBER, name)) if whole in self.table else None


def _short(name, before):
  return next((name.removeprefix(b) for b in before if name.startswith(b)), name)


def _beginnings(prefix):
  """A prefix and those that it begins with, the longest first: a head may stand outside of it."""
  return [prefix[: match.end()] for match in re.finditer(r"[./]", prefix)][::-1]


def _joined(tensors, origin):
  """With query, key and value as one tensor each; where not all three are there, by their names."""
  joined = {}
  for name, value in tensors.items():
    module, _, leaf = name.rpartition(".")
    stem, _, part = module.rpartition(".")
    if part not in _PARTS or not stem.startswith("blocks."):
      joined[name] = value
      continue
    three, whole = [tensors.get(f"{stem}.{p}.{leaf}") for p in _PARTS], f"{stem}.qkv.{leaf}"
    if any(tensor is None for tensor in three) or not _alike(three) or whole in tensors:
      joined[origin[name]] = value
    elif whole not in joined:
      joined[whole] = np.concatenate(three)
  return joined


def _alike(tensors):
  """Whether tensors have one shape, that of a layer's weight or bias."""
  return tensors[0].ndim in (1, 2) and len({tensor.shape for tensor in tensors}) == 1
