import pytest
import tiny

from asvit_jax import network, vit
from asvit_jax.config import base, identity, rules
from asvit_jax.config.model import trained_architecture
from asvit_jax.core.errors import InputError
from asvit_jax.training.train import train
from asvit_jax.weights import saving

pytestmark = pytest.mark.usefixtures("tiny_variant")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"model.variant": "deit_x"}, r"model\.variant 'deit_x' is not known: choose from .*deit_t"),
    ({"model.image_size": 18}, r"image size 18 is not a multiple of patch size 4"),
    ({"model.image_size": "16x18"}, r"image size \(16, 18\) is not a multiple of patch size 4"),
    ({"model.image_size": "wide"}, r"model\.image_size 'wide' is not valid: expected the side"),
    ({"model.patch_size": 0}, r"patch_size 0 .* at least 1"),
    ({"model.patch_size": 1, "model.stem": "conv"}, r"patch size 1 with the 'conv' stem"),
    ({"teacher_from": "w.safetensors"}, r"teacher_from without a budget"),
    ({"model.num_classes": 0}, r"num_classes 0 .* at least 1"),
    ({"budget": 1.3}, r"budget 1\.3 is not in \(0, 1\]"),
    ({"budget": 0.0}, r"budget 0 is not in \(0, 1\]"),
    ({"budget": 0.05}, r"budget 0\.05 cannot be met"),
    ({"budget": 0.5}, r"init_from is empty"),
    ({"batch_size": 0}, r"batch_size 0 is not valid: expected at least 1"),
    ({"eval.batch_size": 0}, r"eval\.batch_size 0 is not valid"),
    ({"epochs": 0.0}, r"epochs 0\.0 is not valid"),
    ({"epochs": None}, r"epochs None is not valid: expected a value, such as its default, 30\.0"),
    ({"optimizer.lr": None}, r"optimizer\.lr None is not valid"),
    ({"data.crop_scale": None}, r"data\.crop_scale None is not valid"),
    ({"total_steps": 0}, r"total_steps 0 is not valid"),
    ({"label_smoothing": 1.0}, r"label_smoothing 1\.0 is not valid: expected in \[0, 1\)"),
    ({"ema_decay": 1.0}, r"ema_decay 1\.0 is not valid"),
    ({"optimizer.lr": 0.0}, r"optimizer\.lr 0\.0 is not valid"),
    ({"optimizer.warmup": 1.0}, r"optimizer\.warmup 1\.0 is not valid"),
    ({"model.dtype": "float16"}, r"model\.dtype 'float16' .*float32 or bfloat16"),
    ({"model.precision": "tf32"}, r"model\.precision 'tf32' .*default, high, highest"),
    ({"thresholds": "learned"}, r"thresholds 'learned' .*fixed or calibrated"),
    ({"data.crop_scale": (0.5, 0.2)}, r"data\.crop_scale \(0\.5, 0\.2\)"),
    ({"data.crop_ratio": 1.5}, r"data\.crop_ratio 1\.5"),
    ({"data.rand_augment": 10.5}, r"data\.rand_augment 10\.5 .*in \[0, 10\]"),
    ({"data.rand_augment_deviation": -0.1}, r"data\.rand_augment_deviation -0\.1"),
    ({"data.rand_augment_operations": 0}, r"data\.rand_augment_operations 0"),
    ({"data.color_jitter": 1.1}, r"data\.color_jitter 1\.1"),
    ({"data.repeats": 0}, r"data\.repeats 0 .*at least 1"),
    ({"mix.mixup": -1.0}, r"mix\.mixup -1\.0"),
    ({"mix.cutmix": -1.0}, r"mix\.cutmix -1\.0"),
    ({"mix.switch": 1.5}, r"mix\.switch 1\.5"),
    ({"mix.mode": "elem"}, r"mix\.mode 'elem' .*pairs or batch"),
    ({"mix.erasing": 1.5}, r"mix\.erasing 1\.5 .*in \[0, 1\]"),
  ],
  ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_value_that_cannot_work_is_refused_before_anything_is_opened(tmp_path, changes, message):
  config = tiny.config(tmp_path / "no such data", **changes)
  with pytest.raises(InputError, match=message):
    train(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_the_defaults_and_a_good_config_pass(tmp_path):
  rules.check(base())
  rules.check(tiny.config(tmp_path, budget=0.6, init_from="somewhere"))


@pytest.mark.parametrize("key", ["batch_size", "eval.batch_size"])
def test_a_batch_that_does_not_divide_over_the_devices_is_refused(monkeypatch, key):
  monkeypatch.setattr(rules.jax, "device_count", lambda: 4)
  with pytest.raises(InputError, match=rf"^{key} 6 .* a multiple of 4, the number of devices"):
    rules.check(tiny.config("", **{"eval.batch_size": 4} | {key: 6}))


def refused(config, workdir, message):
  with pytest.raises(InputError, match=message):
    train(config, workdir)
  assert not workdir.exists()


def test_data_that_does_not_fit_is_refused_before_training(tmp_path, folder):
  run = tmp_path / "run"
  refused(tiny.config(tmp_path / "none"), run, r"none' is not a directory")
  refused(tiny.config(folder, **{"data.eval_split": "test"}), run, "no split 'test'")
  changes = {"model.num_classes": 4}
  refused(tiny.config(folder, **changes), run, r"has 3 classes, but model\.num_classes is 4")
  changes = {"data.name": "tfds:nothing"}
  refused(tiny.config(folder, **changes), run, "'nothing' is not prepared")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_an_image_that_is_none_is_refused_before_training(tmp_path, folder, split, damage):
  file = folder / split / "bee" / "1.jpg"
  file.write_bytes(file.read_bytes()[:300] if damage == "truncated" else b"not an image")
  refused(tiny.config(folder), tmp_path / "run", rf"{split}/bee/1\.jpg is not a readable image")


def test_weights_to_start_from_that_do_not_fit_are_refused_before_training(tmp_path, folder):
  run, file = tmp_path / "run", tmp_path / "w.safetensors"

  def start(init_from):
    return tiny.config(folder, init_from=str(init_from), budget=0.6)

  refused(start(file), run, r"w\.safetensors: no such file")
  refused(start(tmp_path), run, "is not a workdir of train.py")
  saving.save(file, tiny.params(tiny.arch(prune_before=())))
  refused(start(file), run, r"w\.safetensors does not fit this model")
  file.write_bytes(file.read_bytes()[:1000])
  refused(start(file), run, "not a readable safetensors file")


def test_a_run_without_a_checkpoint_cannot_be_started_from(tmp_path):
  identity.save(tiny.plan_of(""), tmp_path)
  with pytest.raises(InputError, match="has no checkpoint yet"):
    network.load(tmp_path)


@pytest.mark.parametrize("prune_before", [(0, 2), (2, 2), (3, 2), (2, 6)])
def test_stages_that_are_not_increasing_inner_blocks_are_refused(prune_before):
  with pytest.raises(InputError, match="expected increasing blocks between 1 and 4"):
    tiny.arch(prune_before=prune_before)


def test_a_width_that_does_not_divide_into_heads_is_refused():
  with pytest.raises(InputError, match="width 25 does not divide into 3 heads"):
    tiny.arch(width=25)


def test_a_config_without_a_budget_is_a_dense_network():
  config = tiny.config("")
  assert trained_architecture(config) == tiny.TRAINED.dense
  config.budget = 0.6
  assert trained_architecture(config) == tiny.TRAINED
  assert vit.VARIANTS["tiny"].prune_before
