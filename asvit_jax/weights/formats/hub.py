"""Repositories of the Hugging Face hub."""

from asvit_jax.core.errors import InputError
from asvit_jax.weights.formats.safetensors import safetensors

_PREFIX = "hf:"


class Hub:
  """See `formats`."""

  expects = "hf:OWNER/NAME"

  def recognizes(self, source):
    """The prefix `hf:`."""
    return source.startswith(_PREFIX)

  def read(self, source):
    """See `formats`; the repository must have a model.safetensors."""
    return safetensors.read(_download(source.removeprefix(_PREFIX)))


hub = Hub()


def _download(repository):
  try:
    import huggingface_hub
  except ImportError as error:
    raise InputError(
      f"weights {_PREFIX}{repository}: huggingface_hub fetches it and is not installed: "
      "`pip install huggingface_hub`"
    ) from error
  try:
    return huggingface_hub.hf_hub_download(repository, "model.safetensors")
  except (OSError, ValueError) as error:  # what the hub's and the network's errors derive from
    raise InputError(
      f"weights {_PREFIX}{repository}: cannot be fetched ({str(error).strip()[:300]}); check the "
      "name and the network, or download model.safetensors and give its path"
    ) from error
