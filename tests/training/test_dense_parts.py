"""A dense network is trained in parts of its batch, as a pruned one is."""

import dataclasses

import numpy as np
import optax
import pytest
import tiny

from asvit_jax.losses.objective import Objective
from asvit_jax.network import Network
from asvit_jax.training import parallel
from asvit_jax.training.step import Options, create_state, make_step


def test_a_dense_network_learns_the_same_in_parts_of_a_batch():
  arch = dataclasses.replace(tiny.TRAINED.dense, depth=1)
  images = np.random.default_rng(2).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
  batch = {"image": images, "label": np.arange(8, dtype=np.int32) % 3}
  network, optimizer = Network(arch, tiny.params(arch)), optax.sgd(0.1)
  found = []
  for accumulate in (1, 4):
    options = Options(accumulate=accumulate)
    step = parallel.parallelize(make_step(network, None, Objective(), optimizer, options))
    state = parallel.replicate(create_state(network.params, optimizer, 0.0))
    state, values = step(state, parallel.replicate(()), parallel.shard(batch))
    values = parallel.unreplicate(values)
    assert values["kept"].shape == (0,)
    found.append({k: float(values[k]) for k in ("loss", "accuracy", "grad_norm")})
  whole, parts = found
  assert parts == pytest.approx(whole, rel=1e-4)
