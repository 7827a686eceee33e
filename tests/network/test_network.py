"""`Network` and the public functions around it."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny
from PIL import Image

import asvit_jax
from asvit_jax import vit, weights
from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.network import Network, create, load, load_configured
from asvit_jax.weights.recognition import recognize
from asvit_jax.weights.saving import save
from asvit_jax.weights.stored import Stored

ARCH = tiny.TRAINED
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
OWN = Preprocessing(crop_ratio=0.9, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear")


@pytest.fixture(scope="module")
def network():
  """A pruned network with everything of its own."""
  fields = dict(preprocessing=OWN, classes=("ant", "bee", "cat"), variant="mine")
  return tiny.network(ARCH, **fields).calibrate(PIXELS, 0.7)


def test_it_runs_its_executions_with_its_own_preprocessing(network, short_ladders):
  expected = tiny.run_masked(ARCH, network.params, OWN.normalize(PIXELS))
  for execution in (None, "masked", "packed"):
    outputs = network(PIXELS, execution)
    np.testing.assert_allclose(outputs.logits, expected.logits, atol=2e-5)
    np.testing.assert_array_equal(outputs.kept, expected.kept)
  dense = tiny.run_dense(ARCH, network.params, OWN.normalize(PIXELS))
  for outputs in (network(PIXELS, "dense"), network.dense(PIXELS)):
    np.testing.assert_allclose(outputs.logits, dense.logits, atol=2e-5)
    assert outputs.kept.shape == (6, 0)
  np.testing.assert_allclose(network(OWN.normalize(PIXELS)).logits, expected.logits, atol=2e-5)


def test_it_is_compiled_once_for_other_parameters(network):
  traces = []

  @jax.jit
  def run(network, images):
    traces.append(None)
    return network.apply(images, "masked").logits

  moved = network.with_params(jax.tree.map(lambda x: x + 0.01, network.params))
  assert np.abs(run(network, PIXELS) - run(moved, PIXELS)).max() > 1e-3
  assert len(traces) == 1


def test_it_is_a_pytree_of_its_parameters(network):
  assert len(jax.tree.leaves(network)) == len(jax.tree.leaves(network.params))
  doubled = jax.tree.map(lambda x: 2 * x, network)
  assert isinstance(doubled, Network)
  assert (doubled.arch, doubled.classes) == (network.arch, network.classes)
  np.testing.assert_array_equal(doubled.params["cls_token"], 2 * network.params["cls_token"])


@pytest.mark.parametrize("header", [True, False], ids=["thresholds in the header", "as tensors"])
def test_what_was_saved_is_loaded_without_being_told_anything(tmp_path, network, header):
  network.save(tmp_path / "w.safetensors", thresholds_as_metadata=header)
  loaded = load(tmp_path / "w.safetensors")
  jax.tree.map(np.testing.assert_array_equal, loaded.params, network.params)
  assert loaded.with_params(None) == network.with_params(None)
  names = set(safetensors.numpy.load_file(tmp_path / "w.safetensors"))
  assert any("score_predictor" in name for name in names) != header


def test_a_dense_network_remembers_where_it_could_prune(tmp_path, network):
  network.dense.save(tmp_path / "w.safetensors")
  loaded = load(tmp_path / "w.safetensors")
  assert not loaded.prunes
  assert loaded.arch == ARCH
  assert loaded.calibrate(PIXELS, 0.7).prunes


@pytest.mark.parametrize("variant", vit.VARIANTS)
def test_published_weights_are_recognized_by_their_tensors(monkeypatch, variant):
  # Of all the tensors only the shapes are looked at, so none is made.
  arch = dataclasses.replace(vit.VARIANTS[variant], classes=7)
  side = arch.image_size + 2 * arch.patch_size
  arch = dataclasses.replace(arch, image_size=side)
  zeros = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), vit.specs(arch.dense))
  monkeypatch.setattr(np, "ascontiguousarray", lambda x: x)
  assert recognize(Stored(weights.to_timm(zeros)), "FILE") == (arch, variant)


def test_weights_of_no_known_network_need_an_architecture(tmp_path):
  arch = tiny.arch()
  save(tmp_path / "w.safetensors", tiny.params(arch))
  with pytest.raises(InputError, match=r"of no network known here \(width 24, .*give its"):
    load(tmp_path / "w.safetensors")
  assert load(tmp_path / "w.safetensors", arch).arch == arch
  safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
  with pytest.raises(InputError, match=r"it has no tensor 'patch_embed\.proj\.weight'"):
    load(tmp_path / "other.safetensors")


def test_weights_are_not_loaded_as_another_network_that_has_the_same_tensors(tmp_path, network):
  path = tmp_path / "w.safetensors"
  network.save(path)
  for changes, said in (
    ({"heads": 2}, "heads 3, not 2"),
    ({"prune_before": (1, 2)}, r"prune_before \(1, 2, 3\), not \(1, 2\)"),
    ({"norm_epsilon": 1e-5}, "norm_epsilon 1e-06, not 1e-05"),
  ):
    with pytest.raises(InputError, match=f"does not fit this model: .*{said}"):
      load(path, dataclasses.replace(ARCH, **changes))
  # Where thresholds are still to be set, so is where and how.
  network.dense.save(path)
  other = dataclasses.replace(ARCH, prune_before=(1, 2))
  assert load(path, other).calibrate(PIXELS, 0.8).params["thresholds"].shape == (2,)


def test_a_config_leaves_open_what_the_weights_say(tmp_path, network, tiny_variant):
  path = tmp_path / "w.safetensors"
  arch = dataclasses.replace(ARCH, prune_before=(2, 3))
  other = Network(arch, network.dense.params, preprocessing=OWN).calibrate(PIXELS, 0.8)
  other.save(path)
  loaded = load_configured(path, tiny.plan(tiny.config("")))
  assert (loaded.arch, loaded.preprocessing) == (arch, OWN)
  given = tiny.config("", **{"data.crop_ratio": 0.8, "data.mean": (0.4, 0.4, 0.4)})
  expected = dataclasses.replace(OWN, crop_ratio=0.8, mean=(0.4,) * 3)
  assert load_configured(path, tiny.plan(given)).preprocessing == expected
  with pytest.raises(InputError, match=r"prune_before \(2, 3\), not \(1, 2, 3\)"):
    load_configured(path, tiny.plan(tiny.config("", **{"model.prune_before": (1, 2, 3)})))


def test_another_number_of_names_than_of_classes_is_refused(network):
  with pytest.raises(InputError, match=r"2 names of classes \(ant, bee\).* which has 3 classes"):
    dataclasses.replace(network, classes=("ant", "bee"))


def test_class_names_of_another_head_are_forgotten(tmp_path, network):
  network.dense.save(tmp_path / "w.safetensors")
  other = dataclasses.replace(ARCH, classes=5)
  assert load(tmp_path / "w.safetensors", other, new_head=True).classes is None


def test_a_file_of_a_newer_version_is_refused(tmp_path, network):
  described = network.describe()
  described["architecture"]["rotary"] = True
  save(tmp_path / "w.safetensors", network.params, described)
  with pytest.raises(
    InputError, match=r"unknown rotary.*use the version of asvit_jax that wrote it"
  ):
    load(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
  ("images", "execution", "said"),
  [
    (PIXELS[0], None, r"images of shape \(16, 16, 3\): expected \(b, 16, 16, 3\)"),
    (PIXELS[:, :8], None, r"images of shape \(6, 8, 16, 3\): expected"),
    (PIXELS, "fast", "execution 'fast' is not known: choose from dense, masked, packed"),
  ],
)
def test_images_and_executions_that_do_not_fit_are_refused(network, images, execution, said):
  with pytest.raises(InputError, match=said):
    network(images, execution)


def test_a_network_without_thresholds_cannot_prune(network):
  with pytest.raises(InputError, match="has no thresholds to prune with"):
    network.dense(PIXELS, "packed")


def test_calibration_takes_any_number_of_images_and_batches_of_them(network):
  many = np.random.default_rng(1).integers(0, 256, (70, 16, 16, 3), dtype=np.uint8)
  batches = [{"image": many[:35]}, {"image": many[35:]}]
  ours, same = (network.calibrate(given, 0.7) for given in (many, batches))
  np.testing.assert_allclose(ours.params["thresholds"], same.params["thresholds"], rtol=1e-4)
  share = network.gmacs(ours(many, "masked").kept).mean() / network.dense_gmacs
  assert abs(share - 0.7) < 0.01


def test_gmacs_of_pruned_and_of_dense_images(network):
  kept = np.array([[16.0, 16.0, 16.0], [8.0, 4.0, 2.0]])
  assert network.gmacs(kept)[1] < network.gmacs(kept)[0]
  np.testing.assert_array_equal(network.gmacs(np.zeros((2, 0))), [network.dense_gmacs] * 2)


def test_bfloat16_computes_in_bfloat16_and_says_so(network):
  half = dataclasses.replace(network, dtype="bfloat16")
  assert half.model.dtype == jnp.bfloat16
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half.params))
  logits, expected = half.dense(PIXELS).logits, network.dense(PIXELS).logits
  assert logits.dtype == jnp.float32
  assert 0 < np.abs(logits - expected).max() < 0.2


def test_create_makes_published_networks_and_your_own():
  assert create("digits").variant == "digits"
  assert create(ARCH, seed=1).arch == ARCH
  small = dataclasses.replace(ARCH.dense, depth=1)
  ours, other = create(small, seed=1).params, create(small, seed=2).params
  assert np.abs(ours["head"]["kernel"] - other["head"]["kernel"]).max() > 0
  with pytest.raises(InputError, match="network 'deit_x' is not known: choose from deit_t"):
    create("deit_x")


@pytest.mark.parametrize(
  ("values", "said"),
  [
    ({"crop_ratio": 0.0}, r"data\.crop_ratio 0\.0 is not valid: expected in \[0\.1, 1\]"),
    ({"mean": (0.5,)}, "data.mean .* expected three numbers"),
    ({"std": (0.5, 0.0, 0.5)}, "data.std .* expected three numbers above 0"),
    ({"interpolation": "cubic"}, "data.interpolation 'cubic' is not valid: expected nearest"),
  ],
)
def test_preprocessing_that_cannot_work_is_refused(values, said):
  with pytest.raises(InputError, match=said):
    Preprocessing(**values)


def test_descriptions_survive_json(network):
  text = json.loads(json.dumps(network.describe()))
  assert vit.Architecture.from_json(text["architecture"], "test") == network.arch
  assert Preprocessing.from_json(text["preprocessing"]) == OWN


def test_importing_the_package_loads_nothing_heavy_and_everything_public_is_there():
  script = (
    "import sys, asvit_jax\n"
    "heavy = {'jax', 'flax', 'orbax', 'tensorflow_datasets', 'tensorboard', 'matplotlib'}\n"
    "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    "asvit_jax.Network, asvit_jax.load\n"
    "heavy -= {'jax', 'flax'}\n"
    "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    "assert all(getattr(asvit_jax, name) is not None for name in asvit_jax.__all__)\n"
  )
  process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
  assert process.returncode == 0, process.stderr
  assert "load" in dir(asvit_jax)
  with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
    asvit_jax.nothing  # noqa: B018


def test_weights_of_before_are_those_of_now(network):
  # to_timm and from_timm know no description: what other code reads is as it was.
  tensors = weights.to_timm(network.params)
  params = weights.from_timm(ARCH, tensors, "test")
  jax.tree.map(np.testing.assert_array_equal, params, network.params)


def test_opening_a_file_runs_no_code_that_it_names(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / "theirs.py").write_text("open('ran', 'w').close()\nscore = None\n")
  monkeypatch.chdir(tmp_path)
  described = tiny.network(ARCH).describe()
  described["architecture"]["score"] = "theirs:score"
  save(tmp_path / "w.safetensors", tiny.params(ARCH), described)
  with pytest.raises(InputError, match=r"w\.safetensors names theirs:score, code outside"):
    load(tmp_path / "w.safetensors")
  assert not (tmp_path / "ran").exists()


def test_images_are_read_as_the_network_expects_them(tmp_path):
  network = tiny.network(tiny.arch())
  (tmp_path / "more").mkdir()
  for name, colour in (("b.png", (255, 0, 0)), ("more/a.jpg", (0, 0, 255))):
    Image.new("RGB", (50, 40), colour).save(tmp_path / name)
  read = network.read(tmp_path)
  assert (read.shape, read.dtype) == ((2, 32, 32, 3), np.uint8)
  assert (read[0] == (255, 0, 0)).all()
  np.testing.assert_array_equal(network.read([tmp_path / "more" / "a.jpg"]), read[1:])
  with pytest.raises(InputError, match="no image files found"):
    network.read(tmp_path / "none")


def test_merging_sets_stages_of_any_depth_and_keeps_calibrated_ones():
  network = tiny.network(tiny.arch(depth=6))
  merging = network.dense.merging()
  assert merging.arch.reduction == "merge_tokens"
  assert merging.arch.prune_before == (1, 2, 3, 4, 5)
  assert not merging.prunes
  with pytest.raises(InputError, match="its own stages"):
    network.merging()
