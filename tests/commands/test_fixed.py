"""Fixed execution from the flags of the commands."""

import numpy as np
import pytest
import tiny
from command_lines import run

from asvit_jax.core.errors import InputError
from asvit_jax.network import Network, load

ARCH = tiny.TRAINED

pytestmark = pytest.mark.usefixtures("tiny_variant", "short_ladders")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A data set that no test changes."""
  return tiny.write_folder(tmp_path_factory.mktemp("fixed") / "images")


@pytest.fixture(scope="module")
def weights(folder, tiny_variant, short_ladders):
  """Flags for weights with thresholds and no counts, as earlier versions wrote them."""
  path = folder.parent / "w.safetensors"
  network = Network(ARCH, tiny.params(ARCH.dense), variant="tiny")
  images = network.read(folder / "val")
  network.calibrate(images, 0.7).with_counts(()).save(path)
  data = [f"--config.data.dir={folder}", "--config.data.name=folder"]
  data += ["--config.data.eval_split=val", "--config.eval.batch_size=4"]
  return ("--weights", path, *data)


@pytest.mark.slow
def test_evaluate_counts_the_mean_and_saves_it(weights, folder, tmp_path):
  out = tmp_path / "fixed.safetensors"
  given = ("--execution", "fixed", "--counts", "mean", "--save-weights", out)
  result = run("evaluate", *weights, *given)
  packed = run("evaluate", *weights)
  expected = [round(stage["mean"]) for stage in packed["kept"]]
  assert result["execution"] == "fixed"
  assert result["counts"] == [expected]
  assert [(s["min"], s["max"]) for s in result["kept"]] == [(n, n) for n in expected]
  assert load(out).counts == (tuple(expected),)
  again = run("evaluate", "--weights", out, *weights[2:], "--execution", "fixed")
  assert (again["top1"], again["gmacs"]) == (result["top1"], result["gmacs"])
  on_train = run("evaluate", *weights, "--counts", "mean", "--calibrate-split", "train")
  network = load(weights[1])
  assert on_train["execution"] == "packed"
  expected = network.mean_counts(network.read(folder / "train"))
  assert on_train["counts"] == [list(expected[0])]


@pytest.mark.slow
def test_evaluate_takes_counts_and_predict_and_export_use_them(weights, folder, tmp_path):
  out = tmp_path / "fixed.safetensors"
  result = run("evaluate", *weights, "--counts", "9,5,2", "--save-weights", out)
  assert result["counts"] == [[9, 5, 2]]
  assert load(out).counts == ((9, 5, 2),)
  images = sorted(folder.glob("val/*/*"))[:2]
  flags = ("--weights", out, "--execution", "fixed")
  picture, features = tmp_path / "p.png", tmp_path / "f.npz"
  found = run("predict", *flags, "--picture", picture, "--features", features, *images)
  assert [p["kept"] for p in found["predictions"]] == [[9, 5, 2]] * 2
  assert picture.is_file()
  arrays = np.load(features)
  assert arrays["scores"].shape == (2, 3, 16)
  assert ((arrays["positions"] >= 0).sum(axis=1) == 3).all()
  zipped = tmp_path / "net.zip"
  note = run("export", *flags, "--format", "stablehlo", "--out", zipped)
  assert (note["execution"], note["counts"]) == ("fixed", [[9, 5, 2]])
  by_artifact = run("predict", "--artifact", zipped, *images)["predictions"]
  assert [p["kept"] for p in by_artifact] == [[9, 5, 2]] * 2


@pytest.mark.slow
def test_several_budgets_have_a_row_each(weights, tmp_path):
  out = tmp_path / "dial.safetensors"
  given = ("--calibrate", "0.8,0.6", "--execution", "fixed", "--save-weights", out)
  result = run("evaluate", *weights, *given)
  rows = load(out).counts
  kept = [tuple(stage["min"] for stage in point["kept"]) for point in result["curve"]]
  assert kept == list(rows)
  own = run("evaluate", "--weights", out, *weights[2:], "--counts", "9,5,2;8,4,1")
  assert own["counts"] == [[9, 5, 2], [8, 4, 1]]


@pytest.mark.parametrize(
  ("command", "flags", "said"),
  [
    ("evaluate", ("--execution", "fixed"), r"w\.safetensors has no counts.*--counts mean"),
    ("evaluate", ("--counts", "1" * 5000 + ",5,2"), "--counts '1111"),
    ("evaluate", ("--counts", "many"), "--counts 'many': expected mean, or the patches"),
    ("evaluate", ("--counts", "9,5"), r"counts of a network.*\[9, 5\].*3 stages"),
    ("evaluate", ("--counts", "9,10,2"), "none above the one before"),
    ("evaluate", ("--counts", "9,5,2;8,4,1"), "the counts of a network"),
    ("evaluate", ("--calibrate", "0.7", "--counts", "9,5,2;8,4,1"), "2 rows for 1 budgets"),
    ("evaluate", ("--calibrate-split", "train", "--counts", "9,5,2"), "give it a budget"),
    ("predict", ("--execution", "fixed"), "has no counts"),
    ("export", ("--execution", "fixed", "--format", "stablehlo"), "has no counts"),
  ],
)
def test_what_cannot_be_is_refused(weights, folder, tmp_path, command, flags, said):
  more = {
    "evaluate": weights[2:],
    "predict": (next(folder.glob("val/*/*")),),
    "export": ("--out", tmp_path / "net.zip"),
  }
  with pytest.raises(InputError, match=said):
    run(command, *weights[:2], *flags, *more[command])
