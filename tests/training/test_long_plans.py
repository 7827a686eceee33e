"""What a run would be is counted, not listed: also where it is as long as steps can be counted."""

import hanging
import numpy as np
import pytest
import tiny

from asvit_jax.network import Network
from asvit_jax.training import summary
from asvit_jax.training.step import initial_share


@pytest.mark.parametrize(("every", "saved"), [(1, 1), (3, 2), (4, 6), (100, 7), (5, 100)])
@pytest.mark.parametrize("steps", [1, 2, 6, 12, 13, 100])
def test_evaluations_and_checkpoints_are_those_of_the_steps(every, saved, steps):
  arch = tiny.TRAINED.dense
  config = tiny.config(
    "", total_steps=steps, checkpoint_every=saved, **{"eval.every": every, "model.variant": "tiny"}
  )
  machine = {"devices": 1, "platform": "cpu", "hosts": 1}
  network = Network(arch, tiny.params(arch))
  counted = summary.summarize(tiny.plan(config, 24), network, Source(), Source(), machine)
  evaluated = {step for step in range(1, steps + 1) if step % every == 0 or step == steps}
  kept = evaluated | {step for step in range(1, steps) if step % saved == 0}
  assert (counted["evaluations"], counted["checkpoints"]) == (len(evaluated), len(kept))


@pytest.mark.parametrize("decay", [0.05, 0.5, 0.9, 0.9995, 0.99996])
@pytest.mark.parametrize("steps", [1, 7, 100, 5000])
def test_the_share_of_the_first_weights_is_the_product_of_the_decays(decay, steps):
  done = np.arange(steps)
  product = np.exp(np.log(np.minimum(decay, (1 + done) / (10 + done))).sum())
  assert initial_share(steps, decay, True) == pytest.approx(product, rel=1e-6, abs=1e-300)


def test_the_longest_run_is_planned_at_once():
  config = tiny.config("", total_steps=2**31 - 1, ema_decay=1 - 1e-12, **{"eval.every": 1})
  network = Network(tiny.TRAINED.dense, tiny.params(tiny.TRAINED.dense))
  with hanging.never():
    counted = summary.summarize(tiny.plan(config, 24), network, Source(), Source())
  assert counted["evaluations"] == counted["checkpoints"] == 2**31 - 1


class Source:
  """24 images."""

  notes = ()

  def __len__(self):
    return 24
