"""The accelerators that programs can be compiled for, and their names: `tpu:v5e:2x4`, `gpu:h100:8`.

Peak rates, memory and its bandwidth are those that the makers publish.
"""

import dataclasses
import math
import re

from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.core.printable import shown

_FORMS = "tpu:v5e:2x4 (the shape of the slice, in chips) or gpu:h100:8 (GPUs of one machine)"
_TWO_DIMENSIONS = ("v5e", "v6e")  # slices of the others have three
_MOST = 1024  # devices; larger targets were never tried

_TPU = "https://cloud.google.com/tpu/docs/"
_A100 = "NVIDIA A100 Tensor Core GPU datasheet"
_H100 = "NVIDIA H100 Tensor Core GPU datasheet, SXM"
_H200 = "NVIDIA H200 Tensor Core GPU datasheet, SXM"


@dataclasses.dataclass(frozen=True)
class Chip:
  """An accelerator, one device of JAX.

  Attributes:
    platform: JAX's name of the platform of its compiler: "tpu" or "cuda".
    bfloat16: peak rate of dense bfloat16 products, FLOP/s.
    float32: the same for float32 arrays at JAX's default precision: one bfloat16 pass on a TPU,
      TF32 on a GPU.
    bandwidth: bandwidth of its memory, bytes/s.
    memory: bytes available to programs. For a TPU, the figure in the compiler of libtpu 0.0.42; for
      a GPU, three quarters of the memory that the driver reports, which is what JAX allocates when
      it starts (XLA_PYTHON_CLIENT_MEM_FRACTION).
    source: where the rates are published.
    gpu: properties of a GPU that its compiler needs, see `compiling.devices`; {} for a TPU.
    clock: clock rate of a TPU, Hz: the rate at which its matrix units, each of 128 x 128 or, in
      v6e, 256 x 256 multipliers, reach the peak. None for a GPU.
  """

  platform: str
  bfloat16: float
  float32: float
  bandwidth: float
  memory: float
  source: str
  gpu: dict = dataclasses.field(default_factory=dict)
  clock: float | None = None


def _tpu(tflops, gigabytes_s, gibibytes, ghz, page):
  rate, memory = tflops * 1e12, gibibytes * 2**30
  return Chip("tpu", rate, rate, gigabytes_s * 1e9, memory, _TPU + page, clock=ghz * 1e9)


def _gpu(tflops, tf32, gigabytes_s, device_bytes, source, **known):
  return Chip(
    "cuda",
    tflops * 1e12,
    tf32 * 1e12,
    gigabytes_s * 1e9,
    0.75 * device_bytes,
    source,
    _CUDA
    | known
    | {"memory_bandwidth": int(gigabytes_s * 1e9), "device_memory_size": device_bytes},
  )


# Fields of XLA's GpuDeviceInfoProto: CUDA's device properties, shared by the cards of a generation.
_CUDA = {
  "threads_per_block_limit": 1024,
  "threads_per_warp": 32,
  "shared_memory_per_block": 49152,
  "threads_per_core_limit": 2048,
  "block_dim_limit_x": 2147483647,
  "block_dim_limit_y": 65535,
  "block_dim_limit_z": 65535,
  "registers_per_core_limit": 65536,
  "registers_per_block_limit": 65536,
}
_AMPERE = {
  "capability": 8,
  "core_count": 108,
  "fpus_per_core": 64,
  "clock_rate_ghz": 1.41,
  "l2_cache_size": 41943040,
  "shared_memory_per_core": 167936,
  "shared_memory_per_block_optin": 166912,
}
_HOPPER = {
  "capability": 9,
  "core_count": 132,
  "fpus_per_core": 128,
  "clock_rate_ghz": 1.98,
  "l2_cache_size": 52428800,
  "shared_memory_per_core": 233472,
  "shared_memory_per_block_optin": 232448,
}

# By the name that follows "tpu:" or "gpu:".
TPUS = {
  "v4": _tpu(275, 1228, 30.75, 1.05, "v4"),
  "v5e": _tpu(197, 819, 15.75, 1.5, "v5e"),
  "v5p": _tpu(459, 2765, 95.74, 1.75, "v5p"),
  "v6e": _tpu(918, 1640, 31.25, 1.75, "v6e"),
}
GPUS = {
  "a100": _gpu(312, 156, 2039, 85100068864, _A100, **_AMPERE),
  "a100-40gb": _gpu(312, 156, 1555, 42331013120, _A100, **_AMPERE),
  "h100": _gpu(989, 494, 3352, 84942979072, _H100, **_HOPPER),
  "h200": _gpu(989, 494, 4800, 151397597184, _H200, **_HOPPER),
}


@dataclasses.dataclass(frozen=True)
class Target:
  """The accelerators that a program is compiled for.

  Attributes:
    name: the name as the user wrote it.
    chip: the `Chip`; all devices are alike.
    kind: name of the chip, a key of `TPUS` or `GPUS`.
    shape: shape of the slice, in chips; (count,) for GPUs.
    host: shape of the part of the slice that belongs to one host.
  """

  name: str
  chip: Chip
  kind: str
  shape: tuple[int, ...]
  host: tuple[int, ...]

  @property
  def devices(self):
    """Number of devices."""
    return math.prod(self.shape)

  @property
  def hosts(self):
    """Number of hosts."""
    return self.devices // math.prod(self.host)


def parse_target(name):
  """The `Target` of a name.

  Args:
    name: `tpu:KIND:SHAPE` or `gpu:KIND[:COUNT]`.

  Raises:
    InputError: the name has another form, or there is no such chip, or no slice of that shape.
  """
  if not isinstance(name, str):
    raise InputError(f"target {shown(name)}: expected a name, tpu:KIND:SHAPE or gpu:KIND[:COUNT]")
  platform, _, rest = name.partition(":")
  kind, _, shape = rest.partition(":")
  if platform == "tpu":
    return _tpu_target(name, kind, shape)
  if platform == "gpu":
    return _gpu_target(name, kind, shape or "1")
  raise InputError(f"--target {name!r}: expected {_FORMS}")


def _tpu_target(name, kind, text):
  _check_kind(name, kind, TPUS)
  dimensions = 2 if kind in _TWO_DIMENSIONS else 3
  example = "2x4" if dimensions == 2 else "2x2x2"
  if not re.fullmatch(rf"[1-9]\d*(x[1-9]\d*){{{dimensions - 1}}}", text):
    raise InputError(
      f"--target {name!r}: expected the shape of a slice of {kind}, {dimensions} numbers, such as "
      f"tpu:{kind}:{example}"
    )
  shape = tuple(map(int, text.split("x")))
  whole = shape in ((1, 1), (2, 4))  # a host of one chip, and a host of eight
  host = shape if whole else (2, 2, 1)[:dimensions]
  if any(chips % of_host for chips, of_host in zip(shape, host, strict=True)):
    raise InputError(
      f"--target {name!r}: a host of {kind} has {'x'.join(map(str, host))} chips: expected sides "
      f"that are multiples of these, such as tpu:{kind}:{example}"
      + (f", or tpu:{kind}:1x1" if dimensions == 2 else "")
    )
  _check_count(name, math.prod(shape))
  return Target(name, TPUS[kind], kind, shape, host)


def _gpu_target(name, kind, text):
  _check_kind(name, kind, GPUS)
  if not re.fullmatch(r"[1-9]\d*", text):
    raise InputError(f"--target {name!r}: expected a number of GPUs, such as gpu:{kind}:8")
  shape = (int(text),)
  _check_count(name, *shape)
  return Target(name, GPUS[kind], kind, shape, shape)


def _check_kind(name, kind, known):
  if kind not in known:
    raise InputError(
      f"--target {name!r}: {kind or 'no chip'!r} is not known, choose from {', '.join(known)}; "
      f"expected {_FORMS}{hint(kind, known)}"
    )


def _check_count(name, count):
  if count > _MOST:
    raise InputError(f"--target {name!r}: {count} devices, expected at most {_MOST}")
