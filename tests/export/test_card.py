"""What a model card makes of names that are Markdown, HTML or YAML."""

import re

import numpy as np
import pytest

from asvit_jax.core.errors import InputError
from asvit_jax.export import card

HOSTILE = (
  "a|b\n---\n- x: &y `c` <script>alert(1)</script> [z](javascript:0) ![p](http://q) $e$ \udcff"
)


def note(**changes):
  arch = {"width": 24, "depth": 4, "heads": 3, "reduction": "drop", "score": HOSTILE}
  return {
    "architecture": arch,
    "prune_before": [1, 3],
    "image_size": 32,
    "patch_size": 8,
    "variant": HOSTILE,
    "num_classes": 5,
    "gmacs_dense": 0.1,
    "thresholds": [0.01, 0.02],
    "budget": None,
    "format": "stablehlo",
    "least_versions": {HOSTILE: HOSTILE},
    "preprocessing": {"mean": [0.485, 0.456, 0.406], "interpolation": HOSTILE},
  } | changes


def test_names_are_text_in_a_card():
  text = card.card(note(), "me/net", "out `x`\n```\n<script>.zip")
  assert text.encode()
  front, rest = text.split("---\n", 2)[1:]
  assert front.splitlines()[0] == "library_name: asvit_jax"
  assert len(front.splitlines()) == 7
  in_code = re.compile(r"^```.*?^```$|`[^`\n]*`", re.M | re.S)
  prose = in_code.sub("", rest)
  assert "<" not in prose and "](" not in prose and "`" not in prose
  for line in prose.splitlines():
    if line.startswith("|"):
      assert line.count("|") == 3, line
  assert "| mean | [0.485, 0.456, 0.406] |" in rest.splitlines()
  assert rest.count("```") == 2
  assert rest.count("\n---\n") == 0


@pytest.mark.parametrize("value", ["a", None, [1], {}, float("nan"), True])
@pytest.mark.parametrize("key", ["top1", "images", "share"])
def test_results_that_are_no_numbers_are_refused(key, value):
  results = {"top1": 79.0, "images": 300, "share": 0.5}
  card.check_results(results)
  with pytest.raises(InputError, match="--results"):
    card.check_results(results | {key: value})


def test_a_plain_card_is_as_it_was():
  arch = note()["architecture"] | {"score": "class_attention"}
  text = card.card(
    note(architecture=arch, variant="deit_t", least_versions={"jax": "0.4.3"}), "me/net", "n.zip"
  )
  for line in (
    "| network | deit_t |",
    "| score | class_attention |",
    "| jax, least version | 0.4.3 |",
    "asvit predict --artifact DIR/n.zip IMAGE …",
    'Or from Python, `asvit_jax.load_artifact("DIR/n.zip")(images)`.',
  ):
    assert line in text.splitlines(), line
  np.testing.assert_equal(text.count("|---|---|"), 2)
