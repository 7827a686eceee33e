"""Classes described by texts: logits are cosines with their features, as CLIP and SigLIP do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from command_lines import run

from asvit_jax import vit
from asvit_jax.core.errors import InputError
from asvit_jax.export.formats import FORMATS
from asvit_jax.network import load
from asvit_jax.weights import saving, texts

WIDTH = 8
ARCH = tiny.arch(
  **dict(depth=3, image_size=16, patch_size=4, prune_before=(1,), classes=WIDTH),
  **dict(norm_pre=True, patch_bias=False, head="projection"),
)
NETWORK = tiny.network(ARCH.dense)
IMAGES = tiny.images(ARCH, 4)
RANDOM = np.random.default_rng(7)
TEXTS = {
  "names": np.array(["ant", "bee", "cat"]),
  "features": RANDOM.standard_normal((3, WIDTH)),
  "scale": np.float32(20),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp("texts") / "texts.npz"
  np.savez(path, **TEXTS)
  return path


def unit(features):
  return features / np.linalg.norm(features, axis=-1, keepdims=True)


@pytest.mark.parametrize("bias", [0.0, -3.5])
@pytest.mark.parametrize("head", ["projection", "none"])
def test_logits_are_scaled_cosines_of_the_features(head, bias):
  network = NETWORK
  given = TEXTS | ({"bias": np.array([bias])} if bias else {})
  if head == "none":
    arch = dataclasses.replace(ARCH.dense, head="none", classes=24)
    network = tiny.network(arch)
    given |= {"features": RANDOM.standard_normal((3, 24))}
  features = np.asarray(network(IMAGES).logits, np.float64)
  classified = network.zero_shot(given)
  expected = 20 * unit(features) @ unit(given["features"]).T + bias
  np.testing.assert_allclose(classified(IMAGES).logits, expected, atol=2e-5)
  assert classified.classes == ("ant", "bee", "cat")
  assert classified.arch.classes == 3
  assert classified.arch.classifies
  assert not network.arch.classifies


def test_a_file_is_what_its_arrays_are_and_other_texts_replace_it(file):
  by_file = NETWORK.zero_shot(file)
  assert by_file == NETWORK.zero_shot(TEXTS)
  other = TEXTS | {"names": ["x", "y"], "features": np.float16(np.eye(2, WIDTH))}
  assert by_file.zero_shot(other) == NETWORK.zero_shot(other)


def test_features_of_no_length_give_finite_logits():
  network = NETWORK.zero_shot(TEXTS)
  zero = jax.tree.map(jnp.zeros_like, network.params["head"])
  logits = network.with_params(network.params | {"head": zero})(IMAGES).logits
  np.testing.assert_array_equal(logits, 0)


def test_it_is_saved_with_its_texts_and_recognized_without_a_description(tmp_path, file):
  network = NETWORK.zero_shot(file)
  network.save(tmp_path / "w")
  assert load(tmp_path / "w") == network
  saving.save(tmp_path / "bare", network.params)
  bare = load(tmp_path / "bare", dataclasses.replace(network.arch))
  np.testing.assert_array_equal(bare(IMAGES).logits, network(IMAGES).logits)
  anew = load(tmp_path / "w", new_head=True, classes=4)
  assert (anew.arch.head, anew.arch.text_width, anew.arch.classes) == ("classifier", 0, 4)
  assert not {"text_head"} & anew.params.keys()
  same = load(tmp_path / "w", new_head=True, classes=3)
  assert same.params["head"]["kernel"].shape == (24, 3)


def test_it_prunes_and_is_exported_like_any_other(tmp_path, short_ladders):
  network = NETWORK.zero_shot(TEXTS)
  arch = dataclasses.replace(network.arch, prune_before=(1,))
  params = tiny.with_thresholds(arch, network.params, IMAGES, (0.6,))
  pruned = dataclasses.replace(network, arch=arch, params=params)
  masked, packed = pruned(IMAGES, "masked"), pruned(IMAGES, "packed")
  assert 0 < np.asarray(masked.kept).max() < arch.patches
  np.testing.assert_allclose(masked.logits, packed.logits, atol=2e-5)
  features = dataclasses.replace(NETWORK, arch=dataclasses.replace(ARCH, prune_before=(1,)))
  features = features.with_thresholds(params["thresholds"])
  assert features.zero_shot(TEXTS) == pruned  # in either order
  FORMATS["stablehlo"].write(pruned, tmp_path / "net", ())
  assert 0 <= FORMATS["stablehlo"].verify(pruned, tmp_path / "net") < 1e-4


def test_the_tools_take_a_file_of_texts(tmp_path, file):
  weights = tmp_path / "clip.safetensors"
  dataclasses.replace(NETWORK, arch=ARCH).save(weights)
  images = tiny.write_folder(tmp_path / "images")
  data = ("--config.data.dir", images, "--config.eval.batch_size", 5)
  asked = ("--weights", weights, "--zero-shot", file)
  with pytest.raises(InputError, match=r"is 8 features.*--zero-shot"):
    run("evaluate", "--weights", weights, *data)
  out = tmp_path / "w.safetensors"
  found = run(
    *("evaluate", *asked, *data, "--calibrate", 0.8, "--execution", "masked"),
    *("--compare-dense", "--save-weights", out),
  )
  assert found["images"] == 10
  assert found["kl"] > 0
  network = load(out)
  assert (network.prunes, network.classes) == (True, ("ant", "bee", "cat"))
  again = run("evaluate", "--weights", out, *data, "--execution", "masked")
  assert again["top1"] == found["top1"]
  image = images / "val" / "ant" / "0.jpg"
  (said,) = run("predict", *asked, image)["predictions"]
  read = NETWORK.read([image])
  probabilities = np.asarray(jax.nn.softmax(NETWORK.zero_shot(file)(read).logits))[0]
  best = np.argsort(-probabilities)
  assert [row["class"] for row in said["top5"]] == [("ant", "bee", "cat")[i] for i in best]
  np.testing.assert_allclose([r["probability"] for r in said["top5"]], probabilities[best], 1e-4)
  np.savez(tmp_path / "two.npz", **TEXTS | {"names": ["a", "b"], "features": np.eye(2, WIDTH)})
  with pytest.raises(InputError, match=r"two\.npz has 2 classes, but data set 'folder' has 3"):
    run("evaluate", "--weights", weights, "--zero-shot", tmp_path / "two.npz", *data)
  tiny.network(tiny.arch(classes=3)).save(tmp_path / "classifier")
  with pytest.raises(InputError, match=r"classifier has a classifier, and no features"):
    run("predict", "--weights", tmp_path / "classifier", "--zero-shot", file, image)


CONFIG = '''"""Nothing but defaults."""

from asvit_jax.config import base


def get_config():
  """Them."""
  return base()
'''


@pytest.mark.slow
def test_texts_go_with_a_config_are_replaced_compared_and_trained(tmp_path, file, short_ladders):
  weights, other, saved = tmp_path / "w", tmp_path / "other.npz", tmp_path / "saved"
  dataclasses.replace(NETWORK, arch=ARCH).save(weights)
  np.savez(other, **TEXTS | {"features": TEXTS["features"][::-1]})
  (tmp_path / "c.py").write_text(CONFIG)
  data = (f"--config.data.dir={tiny.write_folder(tmp_path / 'images')}", "--config.batch_size=8")
  sizes = dict(width=24, heads=3, depth=3, image_size=16, patch_size=4, prune_before="1,")
  keys = (f"--config.model.{key}={value}" for key, value in sizes.items())
  config = ("--config", tmp_path / "c.py", "--config.model.variant=own", *keys, *data)
  by_config = run("evaluate", *config, "--weights", weights, "--zero-shot", file)
  alone = run("evaluate", *data, "--weights", weights, "--zero-shot", file, "--save-weights", saved)
  assert by_config["top1"] == alone["top1"]
  replaced = tmp_path / "replaced"
  run("evaluate", *data, "--weights", saved, "--zero-shot", other, "--save-weights", replaced)
  assert load(replaced) == load(weights).zero_shot(other)
  saving.save(tmp_path / "bare", load(saved).params)  # recognized by its tensors
  bare = run(
    *("evaluate", *config, "--weights", tmp_path / "bare"),
    *("--config.model.num_classes=3", "--config.data.mean=0.485,0.456,0.406"),
    *("--config.data.std=0.229,0.224,0.225", "--config.data.crop_ratio=0.875"),
  )
  assert bare["top1"] == alone["top1"]
  found = run(
    *("compare", *config, "--weights", weights, "--zero-shot", file, "--budgets", 0.8),
    *("--methods", "drop", "--rounds", 0, "--out", tmp_path / "compared"),
  )
  assert found["dense"]["top1"] == alone["top1"]
  workdir = ("--workdir", tmp_path / "run")
  start = (f"--config.init_from={saved}", "--config.model.num_classes=3", "--config.total_steps=2")
  run("train", *config, *start, *workdir)
  network = load(tmp_path / "run")
  assert (network.arch.text_width, network.arch.head) == (WIDTH, "projection")
  moved = np.asarray(
    network.params["text_head"]["kernel"] - load(saved).params["text_head"]["kernel"]
  )
  assert np.abs(moved).max() > 0
  assert run("evaluate", *workdir, *data, "--zero-shot", other)["images"] == 10


@pytest.mark.external
@pytest.mark.parametrize("form", ["onnx", "tflite", "savedmodel"])
def test_other_formats_compute_it_too(tmp_path, form):
  for library in FORMATS[form].needs:
    pytest.importorskip(library)
  network = NETWORK.zero_shot(TEXTS)
  FORMATS[form].write(network, tmp_path / "net", ())
  assert 0 <= FORMATS[form].verify(network, tmp_path / "net") < 1e-4


@pytest.mark.parametrize(
  ("names", "said"),
  [
    (np.array([b"ant", b"bee", b"cat"]), "bytes"),
    (np.array(["ant", "bee", None], object), "Python obj"),
  ],
)
def test_names_of_another_type_are_refused_by_it(tmp_path, names, said):
  np.savez(tmp_path / "t.npz", **(TEXTS | {"names": names}))
  with pytest.raises(InputError, match=rf"texts .*t\.npz: names are {said}.*: expected texts"):
    NETWORK.zero_shot(tmp_path / "t.npz")


def test_a_directory_is_no_file_of_texts(tmp_path):
  with pytest.raises(InputError, match=r"it is a directory; expected an \.npz file of names"):
    NETWORK.zero_shot(tmp_path)


REFUSED = {
  "without features": r"without features: expected names \(classes,\)",
  "unknown": r"with 'what': expected .* and nothing else",
  "width": "features of width 9, but the network's have width 8",
  "not finite": r"features are not finite, nan at \[1, 2\]",
  "not numbers": "features are not numbers of shape",
  "one axis": r"features are not numbers of shape \(classes, width\)",
  "zero": "the features of 'bee' are all 0",
  "twice": "'ant' is the name of classes 0, 1: give each class its own",
  "empty name": "names are <U3 of shape .*, none empty",
  "numbers as names": r"names are int64 of shape \(3,\)",
  "count": "3 names for 2 rows of features",
  "scale 0": "scale 0 is not above 0",
  "scale": r"scale .* is not a finite number",
  "bias": "bias .*nan.* is not a finite number",
}


def changed(kind):
  features = np.array(TEXTS["features"])
  if kind == "not finite":
    features[1, 2] = np.nan
  elif kind == "zero":
    features[1] = 0
  return {
    "without features": {"features": None},
    "unknown": {"what": np.zeros(3)},
    "width": {"features": np.ones((3, 9))},
    "not numbers": {"features": np.array([["a"] * WIDTH] * 3)},
    "one axis": {"features": np.ones(3)},
    "twice": {"names": np.array(["ant", "ant", "cat"])},
    "empty name": {"names": np.array(["ant", " ", "cat"])},
    "numbers as names": {"names": np.arange(3)},
    "count": {"features": np.ones((2, WIDTH))},
    "scale 0": {"scale": np.zeros(())},
    "scale": {"scale": np.ones(3)},
    "bias": {"bias": np.array(np.nan)},
  }.get(kind, {"features": features})


@pytest.mark.parametrize("kind", REFUSED)
def test_texts_that_cannot_be_used_are_refused(tmp_path, kind):
  values = {k: v for k, v in (TEXTS | changed(kind)).items() if v is not None}
  np.savez(tmp_path / "t.npz", **values)
  for given in (values, tmp_path / "t.npz"):
    with pytest.raises(InputError, match=REFUSED[kind]) as error:
      NETWORK.zero_shot(given)
    assert "\n" not in str(error.value)


def test_files_that_hold_no_texts_are_refused(tmp_path):
  with pytest.raises(InputError, match=r"none\.npz: no such file; expected an \.npz file of names"):
    NETWORK.zero_shot(tmp_path / "none.npz")
  (tmp_path / "text.npz").write_text("ant, bee")
  with pytest.raises(InputError, match=r"text\.npz: not a readable \.npz file of arrays"):
    NETWORK.zero_shot(tmp_path / "text.npz")
  with pytest.raises(InputError, match="the network has a classifier, and no features"):
    tiny.network(tiny.arch()).zero_shot(TEXTS)
  with pytest.raises(InputError, match=r'text_width 8 with model\.head "classifier"'):
    tiny.arch(text_width=8)
  with pytest.raises(InputError, match=r'"none" with model\.text_width 8: expected 24'):
    tiny.arch(head="none", text_width=8)


def test_an_architecture_without_texts_is_described_as_before():
  assert "text_width" not in ARCH.to_json()
  arch = NETWORK.zero_shot(TEXTS).arch
  assert vit.Architecture.from_json(arch.to_json(), "x") == arch
  assert texts.of(texts.of(TEXTS)).width == WIDTH
