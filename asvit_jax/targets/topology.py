"""The devices of a target, which programs can be compiled for and nothing can run on."""

from asvit_jax.core.errors import InputError


def devices(target):
  """JAX's devices of a target, all of its hosts.

  Runs in the environment of `process.environment`.

  Args:
    target: a `names.Target`.

  Returns:
    List of `jax.Device`.

  Raises:
    InputError: the compiler has no such topology.
  """
  import jax
  from jax.experimental import topologies

  try:
    if target.chip.platform == "cuda":
      found = topologies.get_topology_desc(
        platform="cuda", topology=f"1x1x{target.devices}", target_config=_gpu_config(target.chip)
      )
    else:
      found = topologies.get_topology_desc(
        platform="tpu",
        topology_name=f"{target.kind}:{'x'.join(map(str, target.shape))}",
        chips_per_host_bounds=(*target.host, 1)[:3],
        # The two cores of a v4 chip are one device, as JAX has them there.
        **({"chip_config_name": "megacore"} if target.kind == "v4" else {}),
      )
  except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
    said = " ".join(str(error).split())[:300]
    raise InputError(
      f"--target {target.name}: the compiler has no such devices ({said}): check the shape, and "
      "the versions against the extra `target` in pyproject.toml"
    ) from error
  if len(found.devices) != target.devices:
    raise InputError(
      f"--target {target.name}: expected {target.devices} devices, the compiler has "
      f"{len(found.devices)}: check the versions against the extra `target` in "
      "pyproject.toml"
    )
  return list(found.devices)


def _gpu_config(chip):
  """The text form of XLA's GpuTargetConfigProto."""
  known = dict(chip.gpu)
  capability = known.pop("capability")
  fields = "\n".join(f"  {key}: {value}" for key, value in known.items())
  return (
    f"gpu_device_info {{\n{fields}\n  cuda_compute_capability {{ major: {capability} }}\n}}\n"
    'platform_name: "CUDA"\n'
    "dnn_version_info { major: 9 minor: 10 }\n"
    "runtime_version { major: 12 minor: 8 }\n"
  )
