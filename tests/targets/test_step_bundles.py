"""Estimates of training steps, by what a TPU's compiler schedules for their kernels."""

import importlib.util

import pytest

from asvit_jax.targets import process, step_bundles, times

# Bundles of libtpu 0.0.42 for v5e in bfloat16: of an image, and of a tile of 256 rows.
RECORDED = {
  "dense_attention": 1901,
  "dense_attention_gradients": 3916,
  "masked_attention": 2018,
  "masked_attention_gradients": 4376,
  "masked_attention_of_sizes": 2030,
  "masked_attention_of_sizes_gradients": 4665,
  "norm_mlp": 5383,
  "norm_mlp_gradients": 12997,
}
MARGIN = 1.1

TEXT = """
  %a.1 = bf16[2,9,128]{2,1,0} custom-call(%q), custom_call_target="tpu_custom_call", metadata={op_name="jit(f)/jvp(jit(_forward))/masked_attention/pallas_call" id=7}
  %a.2 = bf16[2,9,128]{2,1,0} custom-call(%r), custom_call_target="tpu_custom_call", metadata={op_name="jit(f)/masked_attention/pallas_call"}
  %b = (bf16[2,9,384]{2,1,0}) custom-call(%q), custom_call_target="tpu_custom_call", metadata={op_name="jit(f)/masked_attention_gradients/pallas_call"}
  %c = bf16[2,9]{1,0} custom-call(%q), custom_call_target="ConcatBitcast", metadata={op_name="jit(f)/norm_mlp/pallas_call"}
"""  # noqa: E501


def test_calls_of_kernels_are_counted():
  assert step_bundles.calls_in(TEXT) == {"masked_attention": 2, "masked_attention_gradients": 1}


def test_a_program_takes_what_xla_and_its_kernels_take():
  target = times.tpu_target("tpu:v5e:1x1")
  compiled = {"cycles": 3e6, "calls": {"a": 2, "b": 1}}
  found = step_bundles.ms_of(target, compiled, {"a": 1e6, "b": 4e6, "c": 1e9})
  assert found == pytest.approx({"xla_ms": 2.0, "kernels_ms": 4.0, "ms": 6.0})
  # Two cores share the kernels.
  target = times.tpu_target("tpu:v5p:2x2x1")
  found = step_bundles.ms_of(target, compiled, {"a": 1e6, "b": 4e6})
  assert found["kernels_ms"] == pytest.approx(1e3 * 3e6 / target.chip.clock)


@pytest.mark.external
@pytest.mark.slow
def test_kernels_compile_and_schedule_no_more_than_they_did():
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip("libtpu is not installed: pip install '.[target]'")
  job = {"what": "step kernels", "variant": "deit_s", "dtype": "bfloat16", "batch": 64}
  found = process.run(job, times.tpu_target("tpu:v5e:1x1"))
  tiles = -(-64 * 197 // 256)
  assert found.keys() == RECORDED.keys()
  for name, recorded in RECORDED.items():
    programs = tiles if "mlp" in name else 64
    assert recorded / 2 < found[name] / programs < MARGIN * recorded, name
