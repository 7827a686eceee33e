"""The best weights of a run: those that meet its budget first."""

import json
import re

import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.run import ranking
from asvit_jax.run.choice import choose


def config(**changes):
  return tiny.config("", **{"budget": 0.4, "init_from": "x"} | changes)


def write(workdir, *lines):
  """The metrics of a run: (kind, step, top-1, share) a line."""
  workdir.mkdir(exist_ok=True)
  text = "".join(
    json.dumps({"kind": k, "step": s, "top1": t, "share": share}) + "\n" for k, s, t, share in lines
  )
  (workdir / "metrics.jsonl").write_text(text)
  return workdir


@pytest.fixture
def workdir(tmp_path):
  return write(
    tmp_path / "run",
    ("eval", 1, 80.0, 0.48),
    ("eval_raw", 1, 81.0, 0.43),
    ("eval", 2, 70.0, 0.404),
    ("eval_raw", 2, 71.0, 0.45),
    ("eval", 3, 60.0, 0.398),
    ("eval_raw", 3, 65.0, 0.396),
    ("train", 3, 99.0, 0.4),
  )


def test_what_prunes_least_is_not_the_best(workdir):
  found = ranking.of_run(workdir, config())
  best = ranking.best(found)
  assert (best.step, best.weights) == (2, "ema")
  missed = [e for e in found if e.rank < 0]
  nearest = ranking.best(missed)  # where none meets it
  assert (nearest.step, nearest.weights, len(missed)) == (1, "raw", 3)
  best = ranking.best(ranking.of_run(workdir, config(budget=None, init_from="")))
  assert (best.step, best.weights) == (1, "raw")
  wide = ranking.best(ranking.of_run(workdir, config(budget_tolerance=0.25)))
  assert (wide.step, wide.weights) == (1, "raw")


@pytest.mark.parametrize(
  ("step", "weights", "chosen"),
  [
    ("", "", (None, "ema")),
    ("latest", "raw", (None, "raw")),
    ("", "latest", (None, "ema")),
    ("best", "", (2, "ema")),
    ("", "best", (2, "ema")),
    ("best", "raw", (3, "raw")),
    ("latest", "best", (3, "raw")),
    (2, "", (2, "ema")),
    ("2", "raw", (2, "raw")),
  ],
)
def test_a_step_and_its_weights_are_chosen(workdir, step, weights, chosen):
  assert choose(workdir, config(), [1, 2, 3], step, weights) == chosen


def test_the_best_is_of_the_steps_that_are_there(workdir):
  assert choose(workdir, config(), [1, 3], "best") == (3, "raw")


@pytest.mark.parametrize(
  ("step", "weights", "said"),
  [
    ("7", "", "has no step 7: saved are 1, 2, 3"),
    ("bst", "", "step 'bst' is not known: .*did you mean 'best'"),
    ("-1", "", "step '-1' is not known"),
    ("", "avg", "weights_of 'avg' is not known: choose from ema, raw, best, latest"),
    ("best", "latest", "contradict"),
  ],
)
def test_what_a_run_does_not_have_is_refused(workdir, step, weights, said):
  with pytest.raises(InputError, match=said):
    choose(workdir, config(), [1, 2, 3], step, weights)


def test_a_run_without_averages_or_evaluations_has_less_to_choose_from(tmp_path):
  workdir = write(tmp_path / "run", ("eval", 1, 50.0, 0.4))
  plain = config(ema_decay=0.0)
  assert choose(workdir, plain, [1], "best") == (1, "raw")
  assert choose(workdir, plain, [1]) == (None, "raw")
  with pytest.raises(InputError, match="has no averaged weights"):
    choose(workdir, plain, [1], "", "ema")
  with pytest.raises(InputError, match="no evaluated step"):
    choose(tmp_path / "new", plain, [1], "best")


def test_weights_that_are_worse_than_the_others_say_so(workdir, capsys):
  choose(workdir, config(), [1, 2, 3])
  assert "better at this step: --weights-of raw (step 3, raw weights, top-1 65" in (
    capsys.readouterr().err
  )


@pytest.mark.parametrize(
  ("share", "said"),
  [
    (
      0.582,
      "more compute than .*: target 0.5 .* reached 0.582; .*--workdir runs/a --calibrate 0.5 ",
    ),
    (0.45, "BUDGET MISSED, less compute than"),
    (0.505, "^budget met: target 0.5 of the dense GMACs, reached 0.505$"),
  ],
)
def test_a_budget_is_met_or_said_to_be_missed(share, said):
  assert re.search(said, ranking.verdict({"share": share}, 0.5, config(), "--workdir runs/a"))
