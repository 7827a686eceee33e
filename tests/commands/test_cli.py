import json
from pathlib import Path

import pytest
import tiny
from command_lines import answer, assert_one_error, call

from asvit_jax import vit
from asvit_jax.network import load

CLASSES = [f"class{i}" for i in range(10)]
TRAIN = ("train.py", "--config", "configs/digits.py")


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    ((*TRAIN, "--config.batchsize=3"), ("batchsize", "batch_size")),
    ((*TRAIN, "--wrkdir=x"), ("wrkdir",)),
    ((*TRAIN, "--config.foo=3"), ("the config has no key 'foo'",)),
    (("train.py", "--config", "{misspelt}"), ("'drop_pth'; did you mean 'model.drop_path'",)),
    (("train.py", "--config", "configs/none.py"), ("configs/none.py",)),
    (
      ("train.py", "--config", "configs/as_deit_t.py:0.5,foo"),
      ("as_deit_t.py:0.5,foo: argument '0.5,foo': expected BUDGET",),
    ),
    (
      ("train.py", "--config", "configs/as_digits.py:half"),
      ("configs/as_digits.py line ", "ValueError: could not convert"),
    ),
    pytest.param(
      (*TRAIN, "--config.budget=1.3", "--config.init_from=x"),
      ("budget 1.3 is not in (0, 1]",),
      marks=pytest.mark.slow,
    ),
    ((*TRAIN, "--config.init_from=hdfs://b/w"), ("hdfs://b/w: hdfs:// is not supported",)),
  ],
  ids=[
    *("unknown key", "unknown flag", "no such key", "in a file"),
    *("missing config", "argument", "in the config"),
    *("budget", "store"),
  ],
)
def test_bad_input_to_train_is_one_error(tmp_path, arguments, said):
  misspelt = tmp_path / "mine.py"
  text = "from asvit_jax.config import base\n\n\ndef get_config():\n  config = base()\n"
  misspelt.write_text(f"{text}  config.model.drop_pth = 0.1\n  return config\n")
  arguments = [str(argument).format(misspelt=misspelt) for argument in arguments]
  assert_one_error(call(*arguments, "--workdir", tmp_path / "run"), *said)
  assert not (tmp_path / "run").exists()


def test_what_may_not_be_read_is_one_error():
  """Root may read all, so another stands in for what does."""
  main = "def main(_):\n  raise PermissionError(13, 'Permission denied', '/data')"
  process = call("-c", f"from asvit_jax.core import command\n{main}\ncommand.run(main)")
  assert_one_error(process, "/data cannot be read or written (Permission denied)")


@pytest.fixture(scope="module")
def digits_like(tmp_path_factory):
  """Flags that evaluate random weights on 20 images of 10 classes, with no split level."""
  root = tmp_path_factory.mktemp("cli")
  tiny.write_folder(root / "images", CLASSES, train=1, val=(2,), size=(48, 48))
  tiny.network(vit.VARIANTS["digits"]).dense.save(root / "w.safetensors")
  data = root / "images" / "val"
  return (
    *("--config", "configs/digits.py", "--weights", root / "w.safetensors"),
    *("--config.data.name=folder", f"--config.data.dir={data}"),
  )


@pytest.mark.slow
def test_evaluate_ends_with_the_line_of_the_contract(tmp_path, digits_like):
  lines, calibrated = tmp_path / "lines.jsonl", tmp_path / "calibrated.safetensors"
  result = answer(
    *("evaluate.py", *digits_like, "--config.eval.batch_size=8", "--per-image", lines),
    *("--calibrate", 0.6, "--save-weights", calibrated),
    devices=4,
  )
  keys = {"top1", "top5", "gmacs", "share", "kept", "images", "images_per_s"}
  assert keys <= set(result)
  assert result["images"] == 20
  assert 0 <= result["top1"] <= result["top5"] <= 100
  assert [set(stage) for stage in result["kept"]] == [{"mean", "std", "min", "max"}] * 3
  assert result["share"] == pytest.approx(0.6, rel=5e-3)

  rows = [json.loads(line) for line in lines.read_text().splitlines()]
  assert [set(row) for row in rows] == [{"file", "label", "prediction", "kept"}] * 20
  assert [row["label"] for row in rows] == [label for label in range(10) for _ in range(2)]
  assert all(Path(row["file"]).is_file() for row in rows)
  top1 = 100 * sum(row["prediction"] == row["label"] for row in rows) / 20
  assert result["top1"] == pytest.approx(top1)
  for i, stage in enumerate(result["kept"]):
    assert stage["mean"] == pytest.approx(sum(row["kept"][i] for row in rows) / 20)
  network = load(calibrated)
  assert network.prunes
  assert (network.arch, network.variant) == (vit.VARIANTS["digits"], "digits")


def test_an_evaluation_batch_that_does_not_divide_over_devices_is_one_error(digits_like):
  process = call("evaluate.py", *digits_like, "--config.eval.batch_size=6", devices=4)
  assert_one_error(process, "eval.batch_size 6", "a multiple of 4, the number of devices")
