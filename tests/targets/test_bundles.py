"""What a TPU's compiler schedules for the kernels of flat execution."""

import dataclasses
import importlib.util

import numpy as np
import pytest

from asvit_jax import vit
from asvit_jax.targets import bundles, process, times

ARCH = vit.VARIANTS["deit_s"]
WIDTHS = (32, 64, 96, 128, 160, 192, 200)
# Of libtpu 0.0.42 for v5e in bfloat16: a tile of 256 rows, or an image, with the most keys.
RECORDED = {
  "norm_linear": 1878,
  "linear_residual": 720,
  "mlp_residual": 5334,
  "attend": 1641,
  "scored": 1804,
  "read": 506,
  "merges": 1437,
  "compact": 539,
  "embedded": 581,
}
MARGIN = 1.1


def kernels(**changes):
  """Bundles that tell the kernels apart."""
  found = dict(tile=256, norm_linear=1, linear_residual=10, mlp_residual=100, padded=0, embedded=0)
  found |= {name: [[w, 1000 * w] for w in WIDTHS] for name in ("attend", "scored")}
  found["read"] = [[w, w] for w in WIDTHS]
  return found | dict(merges=[[200, 0]], compact=[[200, 0]]) | changes


def test_a_forward_is_the_sum_of_its_kernels():
  arch = dataclasses.replace(ARCH, depth=3, prune_before=(1,))
  tokens = np.array([[197, 33], [197, 16]])
  # Two images of 200 rows are two tiles; 40 and 16 rows are one, at 64 and 32 keys.
  first = 2 * 111 + 2 * 200_000
  second = 111 + 64_000 + 32_000
  last = 1 + 64 + 32
  assert bundles.kernel_cycles(kernels(), arch, tokens) == first + second + last
  # Only stages that merge compare tokens.
  at_stage = kernels(
    scored=[[w, 1000 * w + 10**6] for w in WIDTHS],
    compact=[[64, 10**7], [200, 0]],
    merges=[[128, 0], [200, 10**8]],
    padded=10**9,
  )
  more = bundles.kernel_cycles(at_stage, arch, tokens) - (first + second + last)
  assert more == 2 * (10**6 + 10**7 + 10**9)
  merging = bundles.merging(arch)
  more = bundles.kernel_cycles(at_stage, merging, tokens) - (first + second + last)
  assert more == 2 * (10**6 + 10**7 + 10**8 + 10**9)
  # Eight images are embedded together, 128 columns at once.
  embedded = kernels(embedded=10**9, padded=10**6)
  eight = np.tile(tokens, (4, 1))
  more = bundles.kernel_cycles(embedded, arch, eight) - bundles.kernel_cycles(
    kernels(), arch, eight
  )
  assert more == 3 * 10**9


def test_a_dense_network_has_no_stages():
  at_stage = kernels(scored=[[200, 10**9]], compact=[[200, 10**9]])
  compiled = {"cycles": 3e6, "batch": 2, "compile_s": 1.0}
  target = times.tpu_target("tpu:v5e:1x1")
  found = bundles.estimated(compiled, "dense on rows", at_stage, ARCH, target)["dense on rows"]
  # 400 rows are two tiles.
  cycles = 11 * (2 * 111 + 2 * 200_000) + 2 * 1 + 2 * 200
  assert found["kernels_ms"] == pytest.approx(1e3 * cycles / target.chip.clock)
  assert found["ms"] == pytest.approx(found["kernels_ms"] + 2.0)
  flat = bundles.estimated(compiled, "flat", at_stage, ARCH, target)["flat at 65%"]
  assert flat["kernels_ms"] > 1e3 * 2 * 3 * 2 * 10**9 / target.chip.clock


def test_tokens_of_a_budget_have_its_mean():
  tokens = bundles.tokens_of(ARCH, 64, 0.65)
  assert tokens.shape == (64, 4)
  assert (tokens[:, 0] == 197).all()
  assert (np.diff(tokens, axis=1) <= 0).all()
  assert len(np.unique(tokens[:, 1])) > 20
  assert bundles.tokens_of(ARCH, 64, 0.5).sum() < tokens.sum()
  assert (bundles.tokens_of(ARCH, 2) == 197).all()


def test_bundles_are_read_from_what_libtpu_writes(tmp_path):
  name = "1795976428462418271-linear_residual.1-71-schedule-analysis_final_bundles.txt"
  (tmp_path / name).write_text("a header\ntotal scheduled bundles: 717\n")
  (tmp_path / name.replace("final", "packed")).write_text("total scheduled bundles: 1\n")
  other = "1795976428408580400-TLP-72-schedule-analysis_final_bundles.txt"
  (tmp_path / other).write_text("total scheduled bundles:  162\n")
  (tmp_path / other.replace("TLP", "<late-initialization>")).write_text("none\n")  # for v4
  assert bundles.read_bundles(tmp_path) == {"linear_residual": 717, "TLP": 162}


@pytest.mark.external
@pytest.mark.slow
def test_kernels_compile_and_schedule_no_more_than_they_did():
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip("libtpu is not installed: pip install '.[target]'")
  job = {"what": "bundles", "architecture": ARCH.to_json(), "dtype": "bfloat16"}
  found = process.run(job, times.tpu_target("tpu:v5e:1x1"))
  assert [width for width, _ in found["attend"]] == list(WIDTHS)
  for name in ("attend", "scored", "read", "merges", "compact"):
    found[name] = found[name][-1][1]
  for name, recorded in RECORDED.items():
    assert recorded / 2 < found[name] < MARGIN * recorded, name
