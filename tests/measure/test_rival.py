"""timm's network under `torch.compile`, in a process of its own.

After other tests, loading PyTorch's Triton has crashed a process.
"""

import importlib.util
import json
import subprocess
import sys

import pytest

CODE = """
import json
from asvit_jax import vit
from asvit_jax.measure import rival
arch = vit.Architecture(width=64, heads=1, depth=2, image_size=32, classes=5, prune_before=(1,))
print(json.dumps(rival.run(arch, "float32", 2)))
"""


@pytest.mark.slow
@pytest.mark.external
def test_it_is_timed():
  if not all(map(importlib.util.find_spec, ("torch", "timm"))):
    pytest.skip("PyTorch or timm is not installed")
  done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert found["images_per_s"] == pytest.approx(2e3 / found["ms"])
  assert found["first_s"] > 0
  assert found["torch"] and found["timm"]
