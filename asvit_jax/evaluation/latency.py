"""Latency of requests to a server, packed and dense in turn in the same process."""

import time

import jax
import numpy as np

from asvit_jax.core.progress import Progress, log
from asvit_jax.export.serving import Programs

SIZES = (1, 2, 4, 8, 16, 32)  # compiled batch sizes; other batches are padded
_COMPILED = "/jax/core/compile/backend_compile_duration"


def run(network, images, requests, seed=0):
  """Times requests of single images, then of 1 to 32 images at random, one after the other.

  Both executions are first compiled at `SIZES` and warmed up. A request consists of uint8 images in
  host memory; it ends when the logits are back in host memory.

  Args:
    network: a `Network` that prunes.
    images: (n, height, width, 3) uint8 images from which requests are drawn.
    requests: number of requests of each kind.
    seed: seed of the draws.

  Returns:
    {"single" or "mixed": {"dense" or "packed": dictionary of `p50_ms`, `p99_ms`, `images_per_s`}},
    and `compilations`, the number of compilations after the warm-up.
  """
  servers = {name: _server(network, name) for name in ("dense", "packed")}
  for name, server in servers.items():
    start = time.perf_counter()
    server.warm_up(images[0])
    log(f"{name}: warm after {time.perf_counter() - start:.0f} s")
  rng, compiled = np.random.default_rng(seed), []

  def note(event, duration, **_):
    if event == _COMPILED:
      compiled.append(duration)

  jax.monitoring.register_event_duration_secs_listener(note)
  sizes = {"single": np.ones(requests, int), "mixed": rng.integers(1, SIZES[-1] + 1, requests)}
  seconds = {kind: {name: [] for name in servers} for kind in sizes}
  progress, done = Progress("requests", 2 * requests), 0
  for kind, counts in sizes.items():
    for count in counts:
      request = images[rng.integers(0, len(images), count)]
      for name, server in servers.items():
        start = time.perf_counter()
        server(request)
        seconds[kind][name].append(time.perf_counter() - start)
      progress.update(done := done + 1)
  jax.monitoring.unregister_event_duration_listener(note)
  answer = {
    kind: {name: _summary(times, sizes[kind].sum()) for name, times in of_kind.items()}
    for kind, of_kind in seconds.items()
  }
  return answer | {"compilations": len(compiled)}


def _server(network, execution):
  def run(images):
    outputs = network(images, execution)
    return outputs.logits, outputs.kept

  return Programs(dict.fromkeys(SIZES, run))


def _summary(seconds, images):
  p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
  return {
    "p50_ms": float(p50),
    "p99_ms": float(p99),
    "images_per_s": float(images / np.sum(seconds)),
  }


def table(results):
  """The results as text, a line per execution and kind of request."""
  lines = [f"{'requests':10}{'':8}{'p50 ms':>10}{'p99 ms':>10}{'images/s':>10}"]
  for kind in ("single", "mixed"):
    lines += [
      f"{kind:10}{name:8}{r['p50_ms']:10.1f}{r['p99_ms']:10.1f}{r['images_per_s']:10.1f}"
      for name, r in results[kind].items()
    ]
  return "\n".join(lines)
