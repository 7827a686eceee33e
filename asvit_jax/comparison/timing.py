"""Images per second of contenders and the dense network, in turn, in one process."""

import jax
import numpy as np

from asvit_jax.comparison.accuracy import run_dense
from asvit_jax.core.progress import log
from asvit_jax.core.turns import in_turn
from asvit_jax.data import loader, sources
from asvit_jax.evaluation.speed import summarize


def batch_of(config, source, preprocessing, count):
  """(count, s, s, 3) uint8 images of a source, evenly spaced; repeated where there are fewer."""
  sample = sources.Sample(source, count)
  batches = loader.eval_batches(config, sample, preprocessing)
  images = np.concatenate([batch["image"][batch["valid"]] for batch in batches])
  return np.resize(images, (count, *images.shape[1:]))


def time_in_turn(dense, contenders, images, rounds):
  """Times a forward pass of a batch.

  Args:
    dense: the `Network`, without thresholds.
    contenders: list of `Contender`, calibrated.
    images: (b, s, s, 3) uint8.
    rounds: number of times that each is timed.

  Returns:
    {name, "dense" among them: dictionary of `evaluation.speed.summarize`}.
  """
  calls = {"dense": _compiled("dense", run_dense, dense, images)}
  for contender in contenders:
    calls[contender.name] = _compiled(
      contender.title, contender.execution(), contender.network, images
    )
  return summarize(in_turn(calls, rounds), len(images))


def _compiled(title, run, network, images):
  """A function of nothing that runs it to the end."""
  program = jax.jit(lambda network, images: run(network, images).logits)
  program = program.lower(network, images).compile()

  def call():
    jax.block_until_ready(program(network, images))

  call()  # the first is slower
  log(f"{title}: compiled")
  return call
