"""The source of the embedded digits: real handwriting that needs no download; see `data.digits`."""

from asvit_jax.data.sources import check_directory


class Digits:
  """The embedded digits as a kind of source; the interface is described in `sources`."""

  def open(self, data, split, allow_flat):
    """Prepares the digits under `data.dir`, unless they exist, and opens a split.

    Raises:
      InputError: `data.dir` is not set or cannot be written, scikit-learn is missing, or there is
        no such split.
    """
    del allow_flat
    check_directory(data)
    from asvit_jax.data.digits import prepare  # imports TFDS, which is slow
    from asvit_jax.data.sources.tfds import TfdsSource

    return TfdsSource(prepare(data.dir), data.name, split)

  def class_names(self, data):
    """The ten digits."""
    del data
    return [str(digit) for digit in range(10)]


digits = Digits()
