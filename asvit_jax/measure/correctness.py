"""Correctness: every execution, and every backend of flat that can run here, against masked.

Masked runs image by image, the others all images at once: batch-mates must not matter.
"""

import functools

import jax
import numpy as np

from asvit_jax.core.devices import host_device, precision
from asvit_jax.core.promotion import usual
from asvit_jax.measure.agreement import TOLERANCES, Expected
from asvit_jax.measure.subjects import one_by_one, subject
from asvit_jax.sparsity.executions import flat, flat_backends
from asvit_jax.vit.images import normalized

# Below all scores; thresholds must be finite.
_LEAST = -1e30
# {JAX's name of a platform: its name in `flat_backends.BACKENDS`}, where they differ.
_BACKENDS_OF = {"gpu": "cuda"}


def run(arch, reduction, dtype, shares, images, backends=True):
  """Compares the executions of a network with masked execution on this device.

  Args:
    arch: an `Architecture`.
    reduction: one of `settings.REDUCTIONS`.
    dtype: compute type; in float32, products have its full precision.
    shares: shares of the dense GMACs to calibrate for; the network runs at the first.
    images: number of images.
    backends: whether to compare the backends of flat one by one, too.

  Returns:
    List of dictionaries for JSON: `what` was compared, and the result of `Expected.compare`; or
    `refused`, why a backend does not run this network; or `error`, and `agrees` false.
  """
  with precision("highest" if dtype == "float32" else "default"):
    one = subject(arch, reduction, shares, shares[0], images, dtype)
    masked, tolerance = _masked(one.network, one.images), TOLERANCES[dtype]
    chosen = _chosen(one.network)
    cases = {
      "packed": lambda: masked.compare(*_run(one, "packed"), tolerance),
      f"flat by {chosen}": lambda: masked.compare(*_run(one, "flat"), tolerance),
      "fixed": lambda: _fixed(one, tolerance),
    }
    if backends:
      for name, backend, interpreted in available(jax.default_backend()):
        compare = functools.partial(_backend, one, backend, interpreted, dtype)
        if interpreted or name != chosen:
          cases[f"flat by {name}{', interpreted' if interpreted else ''}"] = compare
    return [{"what": what} | _caught(compare) for what, compare in cases.items()]


def _chosen(network):
  """The name of the backend that flat execution takes for a network on this device."""
  here = _BACKENDS_OF.get(jax.default_backend(), jax.default_backend())
  if here not in flat_backends.BACKENDS:
    here = "cpu"
  return flat_backends.backend_for(network.arch, network.model.dtype, here).name


def available(platform):
  """The backends of flat of all platforms that run on one: (name, backend, whether interpreted).

  Args:
    platform: JAX's name of the platform, such as "cpu" or "gpu".
  """
  here = _BACKENDS_OF.get(platform, platform)
  found = {b.name: (b.name, b, False) for b in flat_backends.BACKENDS.get(here, ())}
  for backends in flat_backends.BACKENDS.values():
    for backend in backends:
      interpreted = getattr(backend, "interpreted", None)
      if interpreted is not None and backend.name not in found:
        found[backend.name] = (backend.name, interpreted, True)
  return list(found.values())


def _caught(compare):
  """The result of a comparison; so is an error of any kind, as compilers have their own."""
  try:
    return compare()
  except Exception as error:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return {"agrees": False, "error": said[:500]}


def _masked(network, images, thresholds=None):
  """The `Expected` of masked execution, image by image, with the given thresholds of each."""
  outputs = (
    one_by_one(network, images)
    if thresholds is None
    else [
      network.with_thresholds(t)(image[None], "masked")
      for image, t in zip(images, thresholds, strict=True)
    ]
  )
  found = jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)
  return Expected.of(found, network.params["thresholds"] if thresholds is None else thresholds)


def _run(one, execution):
  outputs = one.network(one.images, execution)
  return outputs.keep, outputs.logits


def _fixed(one, tolerance):
  """Fixed against masked, with thresholds of each image that keep just as many tokens."""
  counts = one.network.counts[0]
  thresholds = np.stack([_keeping(one.network, image, counts) for image in one.images])
  return _masked(one.network, one.images, thresholds).compare(*_run(one, "fixed"), tolerance)


def _keeping(network, image, counts):
  """(stages,) thresholds with which masked execution keeps these counts of an image."""
  thresholds = np.full(len(counts), _LEAST)
  for stage, count in enumerate(counts):
    outputs = network.with_thresholds(thresholds)(image[None], "masked")
    there = np.ones(outputs.keep.shape[2], bool)
    if stage:
      there = np.asarray(outputs.keep)[0, stage - 1] > 0.5
    scores = np.sort(np.asarray(outputs.scores, np.float64)[0, stage][there])[::-1]
    if count < len(scores):
      thresholds[stage] = (scores[count - 1] + scores[count]) / 2
  return thresholds


def _backend(one, backend, interpreted, dtype):
  """A backend against masked on the same device: interpreted, on the CPU beside it."""
  reason = backend.refuses(one.network.arch, one.network.model.dtype)
  if reason is not None:
    return {"refused": reason}
  device = host_device() if interpreted else None
  if interpreted and device is None:
    return {"refused": "JAX_PLATFORMS leaves out the CPU"}
  with jax.default_device(device):
    network = one.network.with_params(jax.device_get(one.network.params))
    expected = _masked(network, one.images)

    @jax.jit
    @usual
    def forward(network, images):
      images = normalized(images, network.preprocessing)
      outputs = flat.flat(network.model, images, backend)
      return outputs.keep, outputs.logits

    return expected.compare(*forward(network, one.images), TOLERANCES[dtype])
