"""Where JAX computes in float64 unless told otherwise, a run is the same: types are explicit."""

import json
import subprocess

import processes
import pytest

# Trains, goes on from step 4 and evaluates; prints the metrics, the weights and a prediction.
SCRIPT = """
import json, pathlib, shutil, sys
import jax, numpy as np, tiny
from asvit_jax import network, vit
from asvit_jax.core import leaves
from asvit_jax.run import metrics
from asvit_jax.training.train import train
from asvit_jax.weights import saving

folder, workdir = sys.argv[1], pathlib.Path(sys.argv[2])
vit.VARIANTS["tiny"] = tiny.TRAINED
saving.save(workdir / "dense.safetensors", tiny.params(tiny.TRAINED.dense))
changes = {"init_from": str(workdir / "dense.safetensors"), "budget": 0.6, "eval.pictures": 0}
# Adam's correction of its bias, optax's own, rounds in float64 there; all else is held to the bit.
changes |= {"optimizer.name": "sgd", "optimizer.lr": 6.4}
changes |= {"thresholds": "calibrated", "mix.mixup": 0.8, "mix.cutmix": 1.0, "mix.erasing": 0.25}
config = tiny.config(folder, **changes)
train(config, workdir / "run")
before = leaves.checksums(network.load(workdir / "run").params)
shutil.rmtree(workdir / "run" / "checkpoints" / "6")
train(config, workdir / "run")
trained = network.load(workdir / "run")
assert leaves.checksums(trained.params) == before
images = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
outputs = trained(images)
print(json.dumps({
  "x64": bool(jax.config.jax_enable_x64),
  "lines": metrics.read(workdir / "run"),
  "types": sorted({str(leaf.dtype) for leaf in jax.tree.leaves((trained.params, outputs))}),
  "params": {name: np.asarray(leaf, float).ravel().tolist()
             for name, leaf in leaves.named(trained.params)},
  "logits": np.asarray(outputs.logits, float).tolist(),
}))
"""


# XLA must fuse as for users: without, loops over 64-bit indices add up in another order.
@pytest.mark.optimized
@pytest.mark.slow
def test_float64_by_default_changes_nothing(tmp_path, folder):
  running = []
  for enabled in ("0", "1"):
    workdir = tmp_path / enabled
    workdir.mkdir()
    command = processes.command("-c", SCRIPT, folder, workdir)
    environment = processes.environment(JAX_ENABLE_X64=enabled)
    with (workdir / "log").open("w") as log:
      running.append(
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
      )
  said = [process.communicate(timeout=300)[0] for process in running]
  for process, workdir in zip(running, ("0", "1"), strict=True):
    assert process.returncode == 0, (tmp_path / workdir / "log").read_text()[-3000:]
  single, double = (json.loads(text.splitlines()[-1]) for text in said)
  assert (single["x64"], double["x64"]) == (False, True)
  assert single["types"] == double["types"] == ["float32"]
  speeds = {"images_per_s", "data_wait"}
  for ours, theirs in zip(single["lines"], double["lines"], strict=True):
    assert {k: v for k, v in ours.items() if k not in speeds} == {
      k: v for k, v in theirs.items() if k not in speeds
    }
  assert double["params"] == single["params"]
  assert double["logits"] == single["logits"]
