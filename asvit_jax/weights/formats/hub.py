"""Repositories of the Hugging Face hub."""

import pathlib

from asvit_jax.core.errors import InputError
from asvit_jax.weights.formats import hub_config
from asvit_jax.weights.formats.repository import INDICES, WEIGHTS, repository, shards

_PREFIX = "hf:"


class Hub:
  """The format of repositories on the Hugging Face hub, `hf:OWNER/NAME`; see `formats`."""

  expects = "hf:OWNER/NAME"
  takes_key = True

  def recognizes(self, source):
    """Whether the source has the prefix `hf:`."""
    return source.startswith(_PREFIX)

  def read(self, source, key=""):
    """The `Stored` of a repository whose weights `repository` can read; see `formats`."""
    return repository.read(_download(source), key, named=source)


hub = Hub()


def _download(source):
  """Downloads the needed files of a repository; returns their directory in the hub's cache."""
  try:
    import huggingface_hub
  except ImportError as error:
    raise InputError(
      f"weights {source}: needs huggingface_hub, which is not installed: "
      "`pip install huggingface_hub`"
    ) from error
  name, _, revision = source.removeprefix(_PREFIX).partition("@")
  unreachable = []

  def fetch(file):
    """The path of a file; None if the repository, or offline the cache, does not have it."""
    try:
      path = huggingface_hub.hf_hub_download(name, file, revision=revision or None)
    except huggingface_hub.errors.EntryNotFoundError as error:
      unreachable.extend([error] if isinstance(error, FileNotFoundError) else [])
      return None
    return pathlib.Path(path)

  try:
    for file in hub_config.NAMES:
      fetch(file)
    for file in (*WEIGHTS, *INDICES):
      if (path := fetch(file)) is not None:
        for shard in shards(path, f"weights {source}") if file in INDICES else ():
          fetch(shard)
        return path.parent
    if unreachable:
      raise unreachable[-1]
  except InputError:
    raise
  except (OSError, ValueError) as error:  # the base classes of the hub's and the network's errors
    raise InputError(
      f"weights {source}: cannot be fetched ({str(error).strip()[:300]}); check the name and the "
      "network, or download its files and give the path of their directory"
    ) from error
  raise InputError(
    f"weights {source}: the repository has none of {', '.join((*WEIGHTS, *INDICES))}; download the "
    "file that has them, and give its path"
  )
