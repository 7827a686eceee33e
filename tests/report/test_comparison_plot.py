import numpy as np

from asvit_jax.report.comparison import draw_comparison


def row(method, gmacs, top1, finetuned=False, **more):
  return {"method": method, "gmacs": gmacs, "top1": top1, "finetuned": finetuned} | more


RESULTS = {
  "dense": {"top1": 80.0, "gmacs": 4.0},
  "results": [
    row("merge", 3.0, 79.0, thresholds=[0.1]),
    row("tome", 3.1, 78.0),
    row("merge", 2.0, 77.0, thresholds=[0.2]),
    row("tome", 2.1, 76.0),
  ],
}


def points(axes, method):
  (line,) = [line for line in axes.lines if line.get_label() == method]
  return np.array(line.get_data()).T.tolist(), line.get_linewidth()


def test_a_line_a_method_and_the_dense_network():
  (axes,) = draw_comparison(RESULTS, "title").axes
  assert points(axes, "dense")[0] == [[4.0, 80.0]]
  ours, width = points(axes, "merge")
  assert ours == [[2.0, 77.0], [3.0, 79.0]]
  theirs, thinner = points(axes, "tome")
  assert theirs == [[2.1, 76.0], [3.1, 78.0]]
  assert thinner < width


def test_fine_tuned_weights_and_speed_have_panels_of_their_own():
  speeds = iter((1.2, 1.3, 1.5, 1.6))
  rows = [r | {"speedup": next(speeds)} for r in RESULTS["results"]]
  results = {
    "dense": RESULTS["dense"],
    "results": [*rows, row("merge", 3.0, 79.5, finetuned=True)],
  }
  plain, tuned, speed = draw_comparison(results, "title").axes
  assert [axes.get_title() for axes in (plain, tuned, speed)] == [
    "without training",
    "fine-tuned",
    "without training",
  ]
  assert points(plain, "merge")[0] == [[2.0, 77.0], [3.0, 79.0]]
  assert points(tuned, "merge")[0] == [[3.0, 79.5]]
  assert points(speed, "merge")[0] == [[1.2, 79.0], [1.5, 77.0]]
  assert points(speed, "dense")[0] == [[1.0, 80.0]]
  assert speed.get_xlabel() == "times the dense network's speed"
  assert plain.get_ylim() == tuned.get_ylim() == speed.get_ylim()


def test_divergence_stands_below_top_1():
  rows = [r | {"kl": 0.01 * (90 - r["top1"])} for r in RESULTS["results"]]
  above, below = draw_comparison(RESULTS | {"results": rows}, "title").axes
  assert points(above, "merge")[0] == [[2.0, 77.0], [3.0, 79.0]]
  np.testing.assert_allclose(points(below, "merge")[0], [[2.0, 0.13], [3.0, 0.11]])
  assert below.get_yscale() == "log"
