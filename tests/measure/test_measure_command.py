"""The command as a whole, with the smallest settings."""

import dataclasses
import json

import jax
import pytest
import tiny
from command_lines import run

from asvit_jax.measure import rival, settings
from asvit_jax.measure.parts import Skipped
from asvit_jax.sparsity.executions import flat_backends

SMALL = dataclasses.replace(
  settings.QUICK,
  compared=tiny.arch(depth=3, prune_before=(1, 2)),
  timed={"tiny": tiny.arch(depth=3, prune_before=(1, 2))},
  batches=(3,),
  images=5,
  trained=2,
  least_s=0.01,
)


class Wrong(flat_backends.PlainXLA):
  name = "wrong"

  def fed_forward(self, block, x, layout):
    return x + 0.98 * (super().fed_forward(block, x, layout) - x)


@pytest.mark.slow
def test_it_measures_continues_and_finds_what_is_wrong(tmp_path, monkeypatch, short_ladders):
  def no_rival(*_):
    raise Skipped("it has a test of its own")

  monkeypatch.setattr(settings, "QUICK", SMALL)
  monkeypatch.setattr(rival, "run", no_rival)
  out = tmp_path / "measured"
  command = ("measure", "--quick", "--out", out)
  result = run(*command, "--seconds", 600)
  measured = json.loads((out / "measure.json").read_text())
  assert (result["correct"], result["ok"]) == (True, True)
  assert (result["json"], result["page"]) == (str(out / "measure.json"), str(out / "index.html"))
  done = [one for one in measured["parts"].values() if one["status"] == "done"]
  others = [one for one in measured["parts"].values() if one["status"] != "done"]
  assert {one["kind"] for one in done} >= {"correctness", "throughput", "training"}
  assert {(one["kind"], one["status"]) for one in others} == {("rival", "skipped")}
  assert (result["done"], result["left"]) == (len(done), len(others))
  for one in done:
    if one["kind"] == "throughput":
      assert one["result"]["images_per_s"] > 0
      assert one["result"]["gmacs"] < 0.8 * one["result"]["dense"]["gmacs"]
    if one["kind"] == "training":
      assert one["result"]["finite"]
  assert all(name in (out / "index.html").read_text() for name in ("packed", "bfloat16", "Speed"))

  again = run(*command, "--seconds", 1)  # nothing that was done is measured again
  assert {**again, "left": 0} == {**result, "left": 0}

  jax.clear_caches()  # of programs by the other backend
  monkeypatch.setitem(flat_backends.BACKENDS, "cpu", (Wrong(), flat_backends.PlainXLA()))
  other = run("measure", "--quick", "--out", tmp_path / "other", "--seconds", 600)
  assert (other["correct"], other["ok"]) == (False, False)
