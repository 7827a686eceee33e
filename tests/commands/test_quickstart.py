"""The quickstart, short: a few steps on few images, and all that comes after them."""

import functools
import re

import pytest
from command_lines import run

from asvit_jax.core import recipes
from asvit_jax.data import digits


@pytest.fixture
def short(monkeypatch, tmp_path):
  """Its recipes with few steps, its data with few images; what it does with them is its own."""
  load = recipes.load

  def shortened(name, *arguments):
    config = load(name, *arguments)
    config.update({"total_steps": 3, "batch_size": 8})
    config.model.update({"depth": 4, "prune_before": (1, 2, 3)})  # fewer to compile
    return config

  few = functools.partial(digits.prepare, train_images=64, val_images=16)
  monkeypatch.setattr(recipes, "load", shortened)
  monkeypatch.setattr(digits, "prepare", few)
  monkeypatch.chdir(tmp_path)
  return tmp_path / "runs"


@pytest.mark.slow
def test_it_trains_both_networks_draws_them_and_does_nothing_twice(short, capsys):
  result = run("quickstart")
  dense, pruned = result["dense"], result["pruned"]
  assert (dense["step"], pruned["step"]) == (3, 3)
  assert (dense["images"], pruned["images"]) == (16, 16)
  assert (dense["share"], dense["kept"]) == (1.0, [])
  assert pruned["share"] == pytest.approx(0.5, abs=0.15)  # where its thresholds start
  said = capsys.readouterr().err
  head, *rows = re.findall(r"^ +top-1.*|^(?:dense|pruned) .*", said, re.MULTILINE)
  assert head.split()[:3] == ["top-1", "GMACs", "share"]
  assert rows[0].split() == [
    "dense",
    f"{dense['top1']:.2f}",
    f"{dense['gmacs']:.4f}",
    "1.000",
    "all",
  ]
  kept = [
    word
    for stage in pruned["kept"]
    for word in (f"{stage['mean']:.1f}", "±", f"{stage['std']:.1f}")
  ]
  numbers = [f"{pruned['top1']:.2f}", f"{pruned['gmacs']:.4f}", f"{pruned['share']:.3f}"]
  assert rows[1].split() == ["pruned", *numbers, *kept]
  inside, outside = (
    " ".join(f"{x:.0%}" for x in pruned[k]) for k in ("kept_in_box", "kept_outside")
  )
  assert f"Stages keep {inside} of the patches on the digit and {outside} of the background" in said

  assert result["pictures"] == ["runs/tokens.png", "runs/curves.png"]
  pictures = {path: path.stat().st_mtime_ns for path in short.glob("*.png")}
  assert {path.read_bytes()[:4] for path in pictures} == {b"\x89PNG"}
  again = run("quickstart")  # uses what is there
  assert (again["dense"], again["pruned"]) == (dense, pruned)
  assert "step 3/3" not in capsys.readouterr().err
