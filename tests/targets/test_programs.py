"""What is compiled, on devices that are here."""

import dataclasses

import jax
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.core import leaves
from asvit_jax.sparsity.complexity import dense_gmacs
from asvit_jax.targets import chips, compiling, programs
from asvit_jax.training.opening import open_run

TARGET = chips.parse_target("tpu:v5e:1x1")
SMALL = dataclasses.replace(TARGET, chip=dataclasses.replace(TARGET.chip, memory=2**23))


@pytest.fixture
def config(tiny_variant, folder, tmp_path):
  """Of a pruned run from dense weights."""
  tiny.network(tiny.TRAINED).dense.save(tmp_path / "w.safetensors")
  return tiny.config(folder, budget=0.7, init_from=str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
  "changes",
  [{}, {"budget_range": (0.6, 0.9), "thresholds": "calibrated"}, {"budget": None}],
  ids=["pruned", "dial", "dense"],
)
def test_the_network_without_weights_is_that_of_the_run(config, changes):
  config.update(changes)
  plan = tiny.plan(config)
  network, of_run = programs.untrained(plan), open_run(plan).network
  assert network.arch == of_run.arch
  assert network.budgets == of_run.budgets
  shapes = [[(n, x.shape, x.dtype) for n, x in leaves.named(w.params)] for w in (network, of_run)]
  assert shapes[0] == shapes[1]


@pytest.mark.slow
@pytest.mark.usefixtures("short_ladders")
def test_a_run_is_accounted_for_with_neither_data_nor_weights(monkeypatch, config):
  """Compiled for this CPU's device in place of the target's; the rest is what the worker runs."""
  config.update({"init_from": "none", "batch_size": 4, "total_steps": None})
  config.data.dir = ""
  monkeypatch.setattr(compiling, "devices", lambda target: jax.devices()[:1])
  found = programs.compile_run(tiny.plan(config), SMALL)
  assert (found["images"], found["eval_images"]) == (1_281_167, 50_000)
  assert found["steps"] == -(-30 * 1_281_167 // 4)
  assert set(found["programs"]) == {"step", "evaluation", "packed"}
  for result in found["programs"].values():
    assert result["fits"]
    assert 0 < result["memory_mb"] < result["memory_available_mb"] == 8
  step, packed = found["programs"]["step"], found["programs"]["packed"]
  assert (step["flops_from"], packed["flops_from"]) == ("compiler", "formula")
  assert packed["bytes_from"] == "arguments and results"
  keys = ("memory_mb", "flops", "bytes", "compile_s", "estimated_ms")
  assert [found[key] for key in keys] == [step[key] for key in keys]
  # One image more than the largest batch would take more than there is, or nearly so.
  images, memory_mb = found["largest_batch"], found["largest_batch_memory_mb"]
  assert images > 4 and memory_mb <= 8
  assert memory_mb + (memory_mb - step["memory_mb"]) / (images - 4) > 0.95 * 8


@pytest.mark.slow
def test_the_formula_agrees_with_the_compiler_on_what_products_cost():
  """Of a network wide enough for products to be most of it."""
  arch = tiny.arch(width=192, depth=3, prune_before=(1,), image_size=64)
  network = tiny.Network(arch, vit.specs(arch))
  program = programs.inference_program(network, "masked", 4, 0.8, jax.devices()[0])
  result = compiling.account_for("masked", program, TARGET, "float32")
  assert result["flops"] == pytest.approx(program.flops, rel=0.1)
  assert program.flops < 4 * 2e9 * dense_gmacs(arch)  # of the last block, the class token alone
  packed = programs.inference_program(network, "packed", 4, 0.8, jax.devices()[0])
  assert packed.flops == pytest.approx(0.8 * program.flops)
  kept = dataclasses.replace(network, counts=(20,))
  fixed = programs.inference_program(kept, "fixed", 4, 0.8, jax.devices()[0])
  assert fixed.flops == packed.flops
  less = compiling.account_for("fixed", fixed, TARGET, "float32")["flops"]
  assert less < 0.8 * result["flops"]  # it really computes less than masked
