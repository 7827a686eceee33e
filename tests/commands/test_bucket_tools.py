"""The tools where all their files but the data set are in an object store."""

import json

import pytest
import tiny
from command_lines import run

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError

pytestmark = [pytest.mark.external, pytest.mark.usefixtures("short_ladders")]


@pytest.fixture
def weights(bucket, pruned):
  """Weights in a bucket, which say what they are of."""
  arch, params, _ = pruned
  network = tiny.network(arch, variant="tiny", classes=("ant", "bee", "cat", "dog", "eel"))
  network.with_thresholds(params["thresholds"]).save(f"{bucket}/weights.safetensors")
  return f"{bucket}/weights.safetensors"


def test_what_export_writes_to_a_bucket_predict_reads_there(bucket, weights, folder):
  image, out = f"{bucket}/images/bee.jpg", f"{bucket}/artifacts/tiny.zip"
  storage.write(image, (folder / "val" / "bee" / "0.jpg").read_bytes())
  note = run("export", "--weights", weights, "--format", "stablehlo", "--out", out, "--batch", 1)
  assert note["out"] == out
  assert json.loads(storage.read(f"{out}.json"))["sha256"] == note["sha256"]
  picture = f"{bucket}/tokens.png"
  answers = [
    run("predict", *given, image)["predictions"][0]
    for given in (("--artifact", out), ("--weights", weights, "--picture", picture))
  ]
  assert answers[0]["file"] == image
  assert [a["class"] for a in answers[0]["top5"]] == [a["class"] for a in answers[1]["top5"]]
  assert storage.read(picture).startswith(b"\x89PNG")
  with pytest.raises(InputError, match=r"image gs://.*none\.jpg cannot be read"):
    run("predict", "--artifact", out, f"{bucket}/none.jpg")


def test_evaluate_writes_to_a_bucket(bucket, weights, folder):
  storage.write(f"{bucket}/classes.txt", "ant\nbee\ncat\ndog\neel\n")
  arguments = ["--weights", weights, "--report", f"{bucket}/page"]
  arguments += ["--per-image", f"{bucket}/images.jsonl", "--save-weights", f"{bucket}/again"]
  config = f"{bucket}/mine.py"
  keys = {"data.dir": str(folder), "data.classes": f"{bucket}/classes.txt", "eval.batch_size": 4}
  storage.write(
    config,
    "import tiny\nfrom asvit_jax.config.model import describe_in\n"
    f"def get_config():\n  return describe_in(tiny.config('', **{keys!r}), tiny.arch(), 'tiny')\n",
  )
  from asvit_jax.core import recipes

  result = run("evaluate", f"--config={recipes.find(config)}", *arguments)
  assert result["report"] == f"{bucket}/page/index.html"
  assert b"eel" in storage.read(f"{bucket}/page/index.html")
  rows = storage.read(f"{bucket}/images.jsonl").decode().splitlines()
  assert len(rows) == result["images"] == 10
  assert storage.path(f"{bucket}/again").is_file()


def test_data_in_a_bucket_is_refused_with_what_to_do(bucket, weights):
  for name in ("folder", "tfds:imagenet2012", "digits"):
    config = tiny.config(f"{bucket}/data", **{"data.name": name})
    from asvit_jax.data import sources

    with pytest.raises(InputError, match=r"data\.dir gs://.* only be read from a disk: .*gcsfuse"):
      sources.open_source(config.data, "train")
