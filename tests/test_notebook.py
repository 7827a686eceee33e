"""The notebook runs from its first cell to its last, on a CPU, and says what it should."""

import json
import os
import re

import processes
import pytest

NOTEBOOK = processes.REPOSITORY / "examples" / "prune_your_own.ipynb"


def printed(notebook):
  """All that the cells of a notebook wrote to stdout."""
  outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
  return "".join("".join(o["text"]) for o in outputs if o.get("name") == "stdout")


def assert_pruned(text):
  """The dense network learnt, and the fine-tuned one is near it, and near its budget."""
  found = {
    name: (float(top1), float(share))
    for name, top1, share in re.findall(r"(\S+) +top-1 +([\d.]+)  share ([\d.]+)", text)
  }
  assert found["dense"][0] > 50  # of ten classes
  assert found["fine-tuned"][0] > found["dense"][0] - 10
  assert abs(found["fine-tuned"][1] - 0.7) < 0.05
  assert "the network's own predictions: True" in text


def test_what_is_committed_has_its_outputs_and_is_small():
  notebook = json.loads(NOTEBOOK.read_text())
  assert NOTEBOOK.stat().st_size < 600_000
  assert_pruned(printed(notebook))
  pictures = [
    o for c in notebook["cells"] for o in c.get("outputs", ()) if "image/png" in o.get("data", {})
  ]
  assert len(pictures) == 2
  assert not re.search(r"/(root|home|tmp|work)/", NOTEBOOK.read_text())


@pytest.mark.external
def test_it_runs_from_the_first_cell_to_the_last(tmp_path, monkeypatch):
  nbclient = pytest.importorskip("nbclient")
  nbformat = pytest.importorskip("nbformat")
  pytest.importorskip("ipykernel")
  for name, value in processes.environment().items():
    monkeypatch.setenv(name, value)
  flags = os.environ["XLA_FLAGS"].split()  # it takes longer without XLA's optimisations
  kept = [flag for flag in flags if "optimization_level" not in flag and "expensive" not in flag]
  monkeypatch.setenv("XLA_FLAGS", " ".join(kept))
  notebook = nbformat.read(NOTEBOOK, 4)
  resources = {"metadata": {"path": str(tmp_path)}}
  nbclient.NotebookClient(notebook, timeout=900, resources=resources).execute()
  assert_pruned(printed(notebook))
  assert (tmp_path / "pruned" / "pruned.zip.json").is_file()
