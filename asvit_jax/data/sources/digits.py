"""The embedded digits: real handwriting that needs no download; see `data.digits`."""

from asvit_jax.data.sources import check_directory


class Digits:
  """The source of the embedded digits; see `sources`."""

  def open(self, data, split, allow_flat):
    """Prepares them under `data.dir`, unless they are there, and opens a split.

    Raises:
      InputError: no `data.dir`, it cannot be written, scikit-learn is missing, or no such split.
    """
    del allow_flat
    check_directory(data)
    from asvit_jax.data.digits import prepare  # TFDS, which nobody else pays for
    from asvit_jax.data.sources.tfds import TfdsSource

    return TfdsSource(prepare(data.dir), data.name, split)

  def class_names(self, data):
    """The digits."""
    del data
    return [str(digit) for digit in range(10)]


digits = Digits()
