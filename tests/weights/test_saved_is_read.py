"""What is written can be read again: the same rules hold for both."""

import dataclasses
import json

import jax.numpy as jnp
import pytest
import tiny

from asvit_jax.config import identity
from asvit_jax.core.errors import InputError
from asvit_jax.export import notes
from asvit_jax.network import load
from asvit_jax.weights import saving

ARCH = tiny.arch(width=12, depth=2, prune_before=(1,), image_size=16, classes=3)
MANY = 300_000  # classes, whose names take more than 8 MiB


def described(**changes):
  return tiny.network(ARCH).describe() | changes


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"classes": ["a", "b" * 5000, "c"]}, r"classes\[1\] is text of 5,000 characters"),
    ({"variant": "v" * 300}, "variant is 'vvv.*expected at most 200 characters"),
    ({"budgets": [1e-7]}, r"budgets\[0\] is 1e-07"),
  ],
)
def test_what_could_not_be_read_is_not_written(tmp_path, changes, said):
  content, params = described(**changes), tiny.params(ARCH)
  for write in (
    lambda: saving.save(tmp_path / "w.safetensors", params, content),
    lambda: identity.save(tiny.plan_of(""), tmp_path / "run", content),
    lambda: notes.loads(json.dumps(content | {"format": "stablehlo"}), "it"),
  ):
    with pytest.raises(InputError, match=said):
      write()
  assert not list(tmp_path.glob("**/*.*"))


def test_thresholds_as_metadata_are_held_to_what_is_read(tmp_path):
  params = tiny.params(ARCH) | {"thresholds": jnp.array([1e35])}
  with pytest.raises(InputError, match="thresholds as metadata"):
    saving.save(tmp_path / "w.safetensors", params, described(), thresholds_as_metadata=True)
  assert not list(tmp_path.iterdir())


def test_many_classes_are_read_again(tmp_path):
  arch = dataclasses.replace(ARCH, classes=MANY, width=3)
  names = tuple(f"class number {i} of them, {'x' * 12}" for i in range(MANY))
  network = tiny.network(arch, classes=names)
  network.save(tmp_path / "w.safetensors")
  assert load(tmp_path / "w.safetensors").classes == names
  content = network.describe()
  identity.save(tiny.plan_of(""), tmp_path / "run", content)
  assert (tmp_path / "run" / "network.json").stat().st_size > 8 << 20
  assert identity.load_description(tmp_path / "run")["classes"] == list(names)
  (tmp_path / "a.bin").write_bytes(b"")
  note = json.dumps(content | {"format": "stablehlo"})
  (tmp_path / "a.bin.json").write_text(note)
  assert notes.read_note(tmp_path / "a.bin")["classes"] == list(names)


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_a_preprocessing_that_is_not_the_family_s_is_read_as_it_was_saved(tmp_path, crop_mode):
  network = tiny.network(tiny.arch(pool="map", class_token=False)).dense  # SigLIP's are squashed
  preprocessing = dataclasses.replace(network.preprocessing, crop_mode=crop_mode)
  network = dataclasses.replace(network, preprocessing=preprocessing)
  network.save(tmp_path / "net.safetensors")
  assert load(tmp_path / "net.safetensors") == network
