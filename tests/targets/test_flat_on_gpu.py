"""Flat execution, compiled for a GPU that is not here: what its host waits for."""

import json
import subprocess
import sys

import pytest
from targets.test_compiled import needs

from asvit_jax.targets import chips, process

pytestmark = pytest.mark.external
_COMPILE = """
import json, re, sys
import jax, jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from asvit_jax import vit
from asvit_jax.sparsity.executions import EXECUTIONS, flat_backends, flat_gpu
from asvit_jax.targets import chips, compiling

arch = vit.Architecture(
  width=64, heads=2, depth=4, image_size=64, patch_size=16, classes=5, prune_before=(2, 3),
  reduction="merge", score="attention_novelty",
)
here = SingleDeviceSharding(compiling.devices(chips.parse_target("gpu:h100"))[0])
shapes = jax.tree.map(
  lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here),
  (vit.specs(arch), jax.ShapeDtypeStruct((64, *arch.image_shape), jnp.float32)),
)
found, flat_backends.RUNGS = {}, 2
for lengths in ("rungs", "capacity", "once"):
  flat_backends.BACKENDS["cuda"] = (flat_gpu.Triton(lengths),)

  def forward(params, images):
    model = vit.model(arch, params, dtype=jnp.bfloat16, counts=(12, 7))
    return EXECUTIONS["flat"](model, images).logits

  text = jax.jit(forward).lower(*shapes).compile().as_text()
  name, where = None, []
  for line in text.splitlines():
    if head := re.match(r"(ENTRY )?%?[\\w.\\-]+ \\(.*\\) -> .*\\{$", line):
      name = "program" if head.group(1) else "part"
    elif re.search(r"= .*? (conditional|while)\\(", line):
      where.append(name)
  found[lengths] = {"waits": where, "attention": text.count('"__gpu$xla.gpu.triton"')}
print(json.dumps(found))
"""


def test_a_gpu_waits_at_stages_and_nowhere_else():
  """Conditionals and loops are what the host of a GPU waits for; blocks have none."""
  needs("jax_cuda12_plugin")
  environment = process.environment(chips.parse_target("gpu:h100"))
  command = [sys.executable, "-c", _COMPILE]
  said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
  found = json.loads(said.stdout.splitlines()[-1])
  for lengths, waits in {"rungs": 2, "capacity": 2, "once": 1}.items():
    assert found[lengths]["waits"] == ["program"] * waits
    assert found[lengths]["attention"] >= 2
