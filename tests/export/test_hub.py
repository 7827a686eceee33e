"""`export.py --push-to-hub`, against a hub that is a folder: nothing here touches the network."""

import json
import shutil
import sys
import types
from unittest import mock

import jax
import numpy as np
import pytest
import tiny
from command_lines import run

from asvit_jax.core.errors import InputError
from asvit_jax.export import hub
from asvit_jax.network import load

RESULTS = {"top1": 79.666, "top5": 94.0, "gmacs": 0.80812, "share": 0.6484, "images": 300}


class Api:
  """What is used of `huggingface_hub.HfApi`, on a folder."""

  root, calls, refuses = None, (), None

  def whoami(self):
    Api.calls = [*Api.calls, "whoami"]
    if Api.refuses == "whoami":
      raise OSError("Token is required,\nbut none was found")

  def create_repo(self, repo_id, private, exist_ok):
    assert exist_ok
    Api.calls = [*Api.calls, ("create", repo_id, private)]
    return f"https://hub/{repo_id}"

  def upload_folder(self, *, repo_id, folder_path, commit_message):
    if Api.refuses == "upload":
      raise RuntimeError("403 Forbidden")
    Api.calls = [*Api.calls, commit_message]
    shutil.copytree(folder_path, Api.root / repo_id)


@pytest.fixture
def remote(tmp_path, monkeypatch):
  """The folder that is the hub."""
  monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(HfApi=Api))
  for name, value in (("root", tmp_path / "hub"), ("calls", ()), ("refuses", None)):
    monkeypatch.setattr(Api, name, value)
  return tmp_path / "hub"


@pytest.fixture
def weights(tmp_path):
  """A file of a pruned network of no known variant."""
  thresholds = np.array([0.01, 0.025], np.float32)
  arch = tiny.arch(depth=4, prune_before=(1, 3))
  network = tiny.network(arch, variant="mine", classes=tuple("abcde")).with_thresholds(thresholds)
  network.save(tmp_path / "w.safetensors")
  return tmp_path / "w.safetensors"


def export(tmp_path, weights, *flags):
  out = ("--format", "safetensors", "--out", tmp_path / "out.safetensors")
  return run("export", "--weights", weights, *out, *flags)


def test_weights_note_and_card_are_pushed_and_load_again(tmp_path, remote, weights):
  (tmp_path / "r.txt").write_text(f"progress\n{json.dumps(RESULTS)}\n")
  flags = ("--push-to-hub", "me/net-65", "--results", tmp_path / "r.txt", "--private")
  answer = export(tmp_path, weights, *flags)
  assert answer["hub"] == "https://hub/me/net-65"
  assert list(Api.calls) == [
    *("whoami", ("create", "me/net-65", True), "safetensors written by asvit_jax")
  ]
  pushed = remote / "me" / "net-65"
  names = ["README.md", "model.safetensors", "model.safetensors.json"]
  assert sorted(path.name for path in pushed.iterdir()) == names
  loaded, network = load(pushed / "model.safetensors"), load(weights)
  jax.tree.map(np.testing.assert_array_equal, loaded.params, network.params)
  assert loaded.describe() == network.describe()
  note = json.loads((pushed / "model.safetensors.json").read_text())
  assert note.items() <= answer.items()
  card = (pushed / "README.md").read_text()
  assert card.startswith("---\nlibrary_name: asvit_jax\npipeline_tag: image-classification\n")
  for line in (
    *("# net-65", "| network | mine |", "| width | 24 |", "| image size, patch size | 32×32, 8 |"),
    *(
      "| classes | 5 |",
      "| prunes before blocks (from 0) | 1, 3 |",
      "| thresholds | 0.01, 0.025 |",
    ),
    *("| mean | [0.485, 0.456, 0.406] |", "| crop_ratio | 0.875 |", "| interpolation | bicubic |"),
    *("| top-1 | 79.67 % |", "| share of the dense network's | 0.648 |", "| images | 300 |"),
    'network = asvit_jax.load("hf:me/net-65")',
  ):
    assert line in card.splitlines(), line


@pytest.mark.slow
def test_a_card_of_a_network_for_rectangles_says_its_height_and_width(tmp_path, remote):
  tiny.network(tiny.arch(image_size=(16, 48)).dense).save(tmp_path / "w.safetensors")
  export(tmp_path, tmp_path / "w.safetensors", "--push-to-hub", "me/net")
  card = (remote / "me" / "net" / "README.md").read_text()
  assert "| image size, patch size | 16×48, 8 |" in card
  assert "(b, 16, 48, 3) uint8 RGB" in card


@pytest.mark.slow
def test_a_card_has_no_results_but_those_given(tmp_path, remote, weights):
  export(tmp_path, weights, "--push-to-hub", "me/net")
  card = (remote / "me" / "net" / "README.md").read_text()
  assert "Results" not in card
  assert "top-1" not in card


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (("--push-to-hub", "net"), r"--push-to-hub 'net': expected OWNER/NAME"),
    (("--push-to-hub", "a/b", "--results", "none.json"), r"--results none\.json: no line of JSON"),
    (("--push-to-hub", "a/b", "--results", "list.json"), r"--results: expected the line of JSON"),
    (("--results", "list.json"), "--results and --private are for --push-to-hub"),
    (("--private",), "--results and --private are for --push-to-hub"),
  ],
)
def test_what_cannot_be_pushed_is_refused_before_anything_is_written(
  tmp_path, remote, weights, monkeypatch, flags, said
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "list.json").write_text("[1]")
  with pytest.raises(InputError, match=said):
    export(tmp_path, weights, *flags)
  assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.slow
def test_what_the_hub_says_is_one_line(tmp_path, remote, weights, monkeypatch):
  monkeypatch.setattr(Api, "refuses", "whoami")
  with pytest.raises(InputError, match=r"a/b: OSError: Token is required, but none was .*login"):
    export(tmp_path, weights, "--push-to-hub", "a/b")
  assert not (tmp_path / "out.safetensors").exists()
  monkeypatch.setattr(Api, "refuses", "upload")
  with pytest.raises(InputError, match="a/b: RuntimeError: 403 Forbidden"):
    export(tmp_path, weights, "--push-to-hub", "a/b")
  assert (tmp_path / "out.safetensors").exists()  # it only was not pushed
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(InputError, match="needs huggingface_hub, which is not installed"):
    hub.check("a/b")


@pytest.mark.external
def test_the_hub_has_what_is_called(tmp_path, weights):
  library = pytest.importorskip("huggingface_hub")
  export(tmp_path, weights)
  with mock.patch.object(library, "HfApi", mock.create_autospec(library.HfApi)) as api:
    hub.check("me/net")
    hub.push(tmp_path / "out.safetensors", "me/net")
  api.return_value.upload_folder.assert_called_once()
  folder = api.return_value.upload_folder.call_args.kwargs["folder_path"]
  assert not folder.exists()  # it was there for the time of the call
  from huggingface_hub import ModelCard

  text = hub.card(hub.read_note(tmp_path / "out.safetensors"), "me/net", "model.safetensors")
  assert ModelCard(text).data.library_name == "asvit_jax"
