"""What may happen to a checkpoint on a disk."""


def flip_a_byte(step):
  """In each of its files of numbers: which of them Orbax reads again is not said."""
  for file in _files(step):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def truncate(step):
  """All of them to the half."""
  for file in _files(step):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def delete(step):
  """All of them."""
  for file in _files(step):
    file.unlink()


ALL = (flip_a_byte, truncate, delete)


def _files(step):
  files = [path for path in (step / "params").rglob("*") if path.is_file() and "d" in path.parts]
  assert files
  return files
