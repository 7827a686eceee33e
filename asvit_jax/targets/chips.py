"""What accelerators have: peak rates, memory and its bandwidth, as their makers publish them."""

import dataclasses

_TPU = "https://cloud.google.com/tpu/docs/"
_A100 = "NVIDIA A100 Tensor Core GPU datasheet"
_H100 = "NVIDIA H100 Tensor Core GPU datasheet, SXM"
_H200 = "NVIDIA H200 Tensor Core GPU datasheet, SXM"


@dataclasses.dataclass(frozen=True)
class Chip:
  """An accelerator, one device of JAX.

  Attributes:
    platform: JAX's name of what compiles for it: "tpu" or "cuda".
    bfloat16: peak of dense bfloat16 products, FLOP/s.
    float32: the same for float32 arrays at JAX's default precision: one bfloat16 pass on a TPU,
      TF32 on a GPU.
    bandwidth: of its memory, bytes/s.
    memory: bytes that programs may take. Of a TPU, what the compiler of libtpu 0.0.42 calls
      available; of a GPU, three quarters of what the driver reports, which is what JAX takes at its
      start (XLA_PYTHON_CLIENT_MEM_FRACTION).
    source: of the rates.
    gpu: what the compiler must know of a GPU, see `topology`; {} for a TPU.
    clock: of a TPU, Hz: with it, as many matrix units as it has, each of 128 x 128 or, in v6e, 256
      x 256 multipliers, come to the peak.
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


# Fields of XLA's GpuDeviceInfoProto: CUDA's device properties, which cards of one generation share.
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

# By the name that a user writes after "tpu:" or "gpu:".
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
