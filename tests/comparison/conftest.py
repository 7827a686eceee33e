"""What comparisons are tested on."""

import dataclasses

import pytest
import tiny


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return tiny.write_folder(tmp_path_factory.mktemp("compare") / "images")


@pytest.fixture(scope="module")
def network():
  """Dense; it would merge by fewer stages than the recipe's."""
  merging = {"reduction": "merge", "score": "attention_novelty", "score_exponents": (0.5, 1.0)}
  return tiny.network(dataclasses.replace(tiny.TRAINED, **merging), variant="tiny").dense
