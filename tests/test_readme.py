import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parent.parent / "README.md"


def test_the_python_examples_run_one_after_the_other(tmp_path, monkeypatch, capsys, short_ladders):
  monkeypatch.chdir(tmp_path)
  examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
  assert len(examples) == 4
  names = {}
  for example in examples:
    exec(compile(example, str(README), "exec"), names)
  assert names["outputs"].logits.shape == (8, 10)
  assert "(8, 10)" in capsys.readouterr().out
  assert names["same"].prunes
  np.testing.assert_allclose(
    names["probabilities"](names["same"], names["images"]).sum(-1), 1, 1e-5
  )
  assert (tmp_path / "digits.zip").is_file()
  assert (tmp_path / "digits.zip.json").is_file()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README.read_text()))))
def test_every_link_into_the_repository_leads_somewhere(target):
  assert target.startswith("https://") or (README.parent / target).exists()
