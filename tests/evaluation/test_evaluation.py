import io
import json

import numpy as np
import processes
import pytest
import tiny
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.evaluation import one_pass
from asvit_jax.evaluation.accuracy import evaluate, evaluate_each
from asvit_jax.sparsity import complexity

COUNT = 10
ARCH = tiny.TRAINED
WHOLE = Preprocessing(crop_ratio=1.0)  # sees all of an image of the network's size


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
  return tiny.config("", **{"eval.batch_size": batch_size})


def make_network():
  images = tiny.normalize(Images().pixels)
  params = tiny.with_thresholds(ARCH, tiny.params(ARCH), images, (0.7, 0.5, 0.3))
  return tiny.network(ARCH, preprocessing=WHOLE).with_params(params)


@pytest.fixture(scope="module")
def network():
  return make_network()


def without_speed(result):
  return {k: v for k, v in result.items() if k != "images_per_s"}


def test_the_summary_and_every_line_equal_a_computation_by_hand(tmp_path, network):
  source, file = Images(), tmp_path / "new" / "lines.jsonl"
  result = evaluate(network, make_config(), source, "masked", file)
  outputs = tiny.run_masked(ARCH, network.params, tiny.normalize(source.pixels))
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

  lines = [json.loads(text) for text in file.read_text().splitlines()]
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
def test_the_batch_size_changes_nothing(tmp_path, network, batch_size):
  def run(batch_size):
    file = tmp_path / f"{batch_size}.jsonl"
    result = evaluate(network, make_config(batch_size), Images(), "masked", file)
    return without_speed(result), file.read_text()

  assert run(batch_size) == run(COUNT)


def test_packed_is_what_runs_and_gives_the_summary_of_masked(network, short_ladders):
  executions = ("packed", "masked", None)
  packed, masked, default = (
    without_speed(evaluate(network, make_config(), Images(), execution)) for execution in executions
  )
  assert packed == masked == default
  assert packed["kept"][0]["std"] > 0


def test_dense_execution_gives_the_summary_of_the_network_without_thresholds(network):
  dense, without = (
    without_speed(evaluate(net, make_config(), Images(), execution))
    for net, execution in ((network, "dense"), (network.dense, None))
  )
  assert dense == without
  assert (dense["kept"], dense["share"]) == ([], 1.0)


def test_top5_counts_a_label_among_the_five_best():
  arch = tiny.arch(depth=1, prune_before=(), width=12, image_size=16, classes=8)
  source = Images(20)
  source.classes = tuple("abcdefgh")
  source.labels = np.random.default_rng(1).integers(0, 8, 20)
  network = tiny.network(arch, preprocessing=WHOLE)
  config = make_config()
  config.model.num_classes = 8
  result = evaluate(network, config, source, "dense")
  logits = np.asarray(tiny.run_dense(arch, network.params, tiny.normalize(source.pixels)).logits)
  best = np.argsort(-logits, axis=1)[:, :5]
  assert result["top5"] == pytest.approx(100 * (best == source.labels[:, None]).any(1).mean())
  assert result["top1"] < result["top5"] < 100
  assert (result["gmacs"], result["share"]) == (complexity.dense_gmacs(arch), 1.0)
  assert result["kept"] == []


def test_shares_kept_in_and_outside_boxes_by_hand(monkeypatch):
  # 4x4 patches. The first image's box holds the centres of the top left four patches, the second's
  # of the bottom row; the network keeps the first eight patches, then the first two.
  boxes = np.array([[0, 0, 0.5, 0.5], [0.8, 0.0, 1.0, 1.0]], np.float32)

  def classify(network, images, execution, against_dense=False):
    keep = np.zeros((len(images), 2, 16), bool)
    keep[:, 0, :8] = keep[:, 1, :2] = True
    return {"top5": np.zeros((len(images), 3), int), "keep": keep}

  monkeypatch.setattr(one_pass, "classify", classify)
  arch = tiny.arch(image_size=16, patch_size=4, prune_before=(2, 3))
  result = evaluate(tiny.network(arch, preprocessing=WHOLE), make_config(), Images(2, boxes))
  # In boxes: 4 + 0 of 8 patches, then 2 + 0. Outside: 4 + 8 of 24, then 0 + 2.
  assert result["kept_in_box"] == pytest.approx([4 / 8, 2 / 8])
  assert result["kept_outside"] == pytest.approx([12 / 24, 2 / 24])


def test_lines_that_cannot_be_written_are_an_input_error(tmp_path, network):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot write per-image results"):
    evaluate(network, make_config(), Images(), "masked", tmp_path / "file" / "lines.jsonl")


def test_it_stops_before_the_next_batch_where_it_is_told_to(network, tmp_path):
  asked = []

  def stopped():
    asked.append(None)
    return len(asked) > 2

  file = tmp_path / "lines.jsonl"
  assert evaluate(network, make_config(), Images(), "masked", file, stopped) is None
  assert len(asked) == 3
  assert not file.exists()


@pytest.mark.slow
def test_workers_decode_where_there_are_many_images_and_change_nothing(network, monkeypatch):
  config = make_config()
  threads = without_speed(evaluate(network, config, Images(), "masked"))
  config.data.workers = 2
  monkeypatch.setattr(one_pass.loader, "_WORTH_WORKERS", COUNT)
  started = one_pass.loader.workers_lib.prefetched
  counts = []

  def noted(dataset, count):
    counts.append(count)
    return started(dataset, count)

  monkeypatch.setattr(one_pass.loader.workers_lib, "prefetched", noted)
  assert without_speed(evaluate(network, config, Images(), "masked")) == threads
  assert counts == [2]


def test_networks_that_share_a_pass_get_what_each_gets_alone(network, monkeypatch):
  other = network.with_params(tiny.params(ARCH, seed=3))
  config, source = make_config(), Images()
  alone = [without_speed(evaluate(n, config, source, "masked")) for n in (network, other)]
  decoded = []
  decode = one_pass.loader.transforms.decode
  monkeypatch.setattr(
    one_pass.loader.transforms, "decode", lambda *args: decoded.append(args[1]) or decode(*args)
  )
  together = evaluate_each([network, other], config, source, "masked")
  assert [without_speed(result) for result in together] == alone
  assert alone[0] != alone[1]
  assert sorted(decoded) == sorted(f"{i}.png" for i in range(COUNT))  # once for both


@pytest.mark.slow
def test_four_devices_give_the_summary_of_one(network):
  script = (
    "import json, jax; from test_evaluation import *; assert jax.device_count() == 4\n"
    "result = evaluate(make_network(), make_config(8), Images(), 'masked')\n"
    "print(json.dumps(without_speed(result)))"
  )
  theirs = json.loads(processes.succeed("-c", script, devices=4).splitlines()[-1])
  assert theirs == without_speed(evaluate(network, make_config(8), Images(), "masked"))


def test_pools_of_batches_change_no_line(tmp_path, network, monkeypatch):
  monkeypatch.setattr(one_pass, "_LEAST_POOLS", 1)
  boxes = np.tile(np.float32([[0.1, 0.2, 0.8, 0.9]]), (COUNT, 1))
  lines, sizes, classify = [], [], one_pass.classify
  for many in (1, 2, 3):  # ten images in pools of 2, of 4 and of 6
    monkeypatch.setattr(one_pass, "_batches_at_once", lambda *_, many=many: many)
    monkeypatch.setattr(
      one_pass, "classify", lambda n, x, *a, **k: sizes.append(len(x)) or classify(n, x, *a, **k)
    )
    file = tmp_path / f"{many}.jsonl"
    evaluate(network, make_config(2), Images(boxes=boxes), "masked", file)
    lines.append([json.loads(line) for line in file.read_text().splitlines()])
  assert set(sizes) == {2, 4, 6}
  assert len(lines[0]) == COUNT
  for other in lines[1:]:
    for line, same in zip(lines[0], other, strict=True):
      assert {k: v for k, v in line.items() if k != "probability"} == {
        k: v for k, v in same.items() if k != "probability"
      }


def test_only_accelerators_run_pools_and_only_where_they_help(network, monkeypatch):
  monkeypatch.setattr(one_pass.streaming, "pool_of", lambda network: 1024)
  of = one_pass._batches_at_once
  assert of(network, "packed", 256, 50_000) == 1
  monkeypatch.setattr(one_pass.jax, "default_backend", lambda: "tpu")
  monkeypatch.setattr(one_pass.jax, "device_count", lambda: 1)
  assert of(network, "packed", 256, 50_000) == of(network, "flat", 256, 50_000) == 4
  assert of(network, "masked", 256, 50_000) == of(network, "packed", 2048, 50_000) == 1
  assert of(network, "packed", 256, 4096) == 2  # the last pool is padded
