"""Weight files as no library would write them, and what reading any file may end in."""

import contextlib
import json
import math
import struct
import tracemalloc

import hanging

from asvit_jax.core.errors import InputError

BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
BYTES |= {
  "I64": 8,
  "I32": 4,
  "I8": 1,
  "U8": 1,
  "BOOL": 1,
  "C64": 8,
  "F8_E8M0": 1,
  "F4": 0.5,
  "F6_E2M3": 0.75,
}


def write_safetensors(path, listed, metadata=None, byte=0):
  """A safetensors file of {name: (type, shape)}; of shapes that would be large, the list alone."""
  header = {} if metadata is None else {"__metadata__": metadata}
  end = 0
  for name, (kind, shape) in listed.items():
    size = int(math.prod(shape) * BYTES[kind]) if min(shape, default=1) >= 0 else 0
    size = size if size <= 1 << 16 else 0
    header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + size]}
    end += size
  text = json.dumps(header).encode("utf-8", "surrogatepass")
  path.write_bytes(struct.pack("<Q", len(text)) + text + bytes([byte]) * end)
  return path


@contextlib.contextmanager
def bounded(megabytes=64):
  """A block that ends soon, in one error or none, in so much memory of NumPy's and Python's.

  Yields:
    List that has the error's text afterwards, where there was one.
  """
  said = []
  tracemalloc.start()
  try:
    with hanging.never():
      yield said
  except InputError as error:
    said.append(str(error))
  finally:
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
  assert peak < megabytes << 20, f"{peak:,} bytes"
  for text in said:
    assert len(text) < 20_000
    assert all(character == "\n" or character.isprintable() for character in text), text
