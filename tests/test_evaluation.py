import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from asvit_jax import complexity, evaluation
from asvit_jax.data import transforms
from asvit_jax.errors import InputError

COUNT = 10
ARCH = tiny.TRAINED


class Images:
  """A `Source` of PNG noise in memory, with boxes if asked for."""

  classes = ("ant", "bee", "cat")

  def __init__(self, count=COUNT, boxes=None):
    rng = np.random.default_rng(7)
    self.pixels = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    self.labels = rng.integers(0, 3, count)
    self.boxes = boxes

  def __len__(self):
    return len(self.pixels)

  def __getitem__(self, index):
    file = io.BytesIO()
    Image.fromarray(self.pixels[index]).save(file, "PNG")
    example = {"image": file.getvalue(), "label": int(self.labels[index]), "file": f"{index}.png"}
    return example if self.boxes is None else example | {"box": self.boxes[index]}


def make_config(batch_size=4):
  return tiny.config("", **{"eval.batch_size": batch_size, "data.crop_ratio": 1.0})


def make_params():
  images = transforms.normalize(Images().pixels)
  return tiny.with_thresholds(ARCH, tiny.params(ARCH), images, (0.7, 0.5, 0.3))


@pytest.fixture(scope="module")
def params():
  return make_params()


@pytest.fixture(scope="module")
def step():
  return evaluation.make_eval_step(ARCH, "masked")


def without_speed(result):
  return {k: v for k, v in result.items() if k != "images_per_s"}


def test_the_summary_and_every_line_equal_a_computation_by_hand(tmp_path, params, step):
  source = Images()
  result = evaluation.evaluate(
    step, ARCH, params, make_config(), source, tmp_path / "new" / "lines.jsonl"
  )
  outputs = tiny.run_masked(ARCH, params, transforms.normalize(source.pixels))
  predictions = np.argmax(outputs.logits, axis=1)
  kept = np.asarray(outputs.kept).astype(int)
  gmacs = complexity.gmacs(ARCH, outputs.kept).mean()

  assert result["images"] == COUNT
  assert result["top1"] == pytest.approx(100 * (predictions == source.labels).mean())
  assert result["top5"] == 100  # three classes
  assert result["gmacs"] == pytest.approx(float(gmacs), rel=1e-6)
  assert result["share"] == pytest.approx(float(gmacs) / complexity.dense_gmacs(ARCH), rel=1e-6)
  assert result["images_per_s"] > 0
  for stage, counts in zip(result["kept"], kept.T, strict=True):
    expected = {
      "mean": counts.mean(),
      "std": counts.std(),
      "min": counts.min(),
      "max": counts.max(),
    }
    assert stage == pytest.approx(expected)
    assert stage["min"] < stage["max"]  # or the test could not tell them apart

  lines = [json.loads(t) for t in (tmp_path / "new" / "lines.jsonl").read_text().splitlines()]
  assert lines == [
    {
      "file": f"{i}.png",
      "label": int(source.labels[i]),
      "prediction": int(predictions[i]),
      "kept": kept[i].tolist(),
    }
    for i in range(COUNT)
  ]


@pytest.mark.parametrize("batch_size", [3, 16])
def test_the_batch_size_changes_nothing(tmp_path, params, step, batch_size):
  def run(batch_size):
    file = tmp_path / f"{batch_size}.jsonl"
    result = evaluation.evaluate(step, ARCH, params, make_config(batch_size), Images(), file)
    return without_speed(result), file.read_text()

  assert run(batch_size) == run(COUNT)


def test_packed_gives_the_summary_of_masked(params, step):
  packed = evaluation.make_eval_step(ARCH, "packed")
  results = [evaluation.evaluate(s, ARCH, params, make_config(), Images()) for s in (packed, step)]
  assert without_speed(results[0]) == without_speed(results[1])
  assert results[0]["kept"][0]["std"] > 0


def test_top5_counts_a_label_among_the_five_best():
  arch = tiny.arch(depth=1, prune_before=(), width=12, image_size=16, classes=8)
  source = Images(20)
  source.classes = tuple("abcdefgh")
  source.labels = np.random.default_rng(1).integers(0, 8, 20)
  params = tiny.params(arch)
  config = make_config()
  config.model.num_classes = 8
  result = evaluation.evaluate(
    evaluation.make_eval_step(arch, "dense"), arch, params, config, source
  )
  logits = np.asarray(tiny.run_dense(arch, params, transforms.normalize(source.pixels)).logits)
  best = np.argsort(-logits, axis=1)[:, :5]
  assert result["top5"] == pytest.approx(100 * (best == source.labels[:, None]).any(1).mean())
  assert result["top1"] < result["top5"] < 100
  assert (result["gmacs"], result["share"]) == (complexity.dense_gmacs(arch), 1.0)
  assert result["kept"] == []


def test_shares_kept_in_and_outside_boxes_by_hand():
  # 4x4 patches. The first image's box holds the centres of the top left four patches, the second's
  # of the bottom row; the step keeps the first eight patches, then the first two.
  boxes = np.array([[0, 0, 0.5, 0.5], [0.8, 0.0, 1.0, 1.0]], np.float32)

  def step(params, images):
    del params
    keep = np.zeros((len(images), 2, 16), bool)
    keep[:, 0, :8] = keep[:, 1, :2] = True
    return {"top5": np.zeros((len(images), 3), int), "keep": keep}

  arch = tiny.arch(image_size=16, patch_size=4, prune_before=(2, 3))
  result = evaluation.evaluate(step, arch, {}, make_config(), Images(2, boxes), None)
  # In boxes: 4 + 0 of 8 patches, then 2 + 0. Outside: 4 + 8 of 24, then 0 + 2.
  assert result["kept_in_box"] == pytest.approx([4 / 8, 2 / 8])
  assert result["kept_outside"] == pytest.approx([12 / 24, 2 / 24])


def test_lines_that_cannot_be_written_are_an_input_error(tmp_path, params, step):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot write per-image results"):
    evaluation.evaluate(
      step, ARCH, params, make_config(), Images(), tmp_path / "file" / "lines.jsonl"
    )


def test_four_devices_give_the_summary_of_one(params, step):
  script = (
    "import json, jax; from test_evaluation import *; assert jax.device_count() == 4\n"
    "step = evaluation.make_eval_step(ARCH, 'masked')\n"
    "result = evaluation.evaluate(step, ARCH, make_params(), make_config(8), Images())\n"
    "print(json.dumps(without_speed(result)))"
  )
  flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
  tests = Path(__file__).parent
  environment = os.environ | {
    "XLA_FLAGS": flags,
    "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)]),
  }
  process = subprocess.run(
    [sys.executable, "-c", script], env=environment, capture_output=True, text=True
  )
  assert process.returncode == 0, process.stderr
  ours = evaluation.evaluate(step, ARCH, params, make_config(8), Images())
  assert json.loads(process.stdout.splitlines()[-1]) == without_speed(ours)
