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
  assert speed.get_xlabel() == "speed-up over the dense network"
  assert plain.get_ylim() == tuned.get_ylim() == speed.get_ylim()


def test_divergence_stands_below_top_1():
  rows = [r | {"kl": 0.01 * (90 - r["top1"])} for r in RESULTS["results"]]
  above, below = draw_comparison(RESULTS | {"results": rows}, "title").axes
  assert points(above, "merge")[0] == [[2.0, 77.0], [3.0, 79.0]]
  np.testing.assert_allclose(points(below, "merge")[0], [[2.0, 0.13], [3.0, 0.11]])
  assert below.get_yscale() == "log"


def test_the_second_picture_is_divergence_at_equal_speed_with_intervals():
  """A line a method against the measured speed-up, on a logarithmic axis; 95 % bars."""
  speeds = iter((1.2, 1.3, 1.5, 1.6))
  rows = [r | {"kl": 0.01 * (90 - r["top1"]), "kl_error": 0.02} for r in RESULTS["results"]]
  rows = [r | {"speedup": next(speeds), "asked_speedup": 1.5} for r in rows]
  rows[0]["kl_error"] = 0.5  # wider than its mean: a logarithm has no place for its lower end
  rows[1]["kl_error"] = None  # of one image
  figure = draw_comparison(RESULTS | {"results": rows}, "title")
  above, below, speed = figure.axes
  assert points(above, "merge")[0] == [[2.0, 77.0], [3.0, 79.0]]
  assert below.get_xlabel() == "GMACs per image"
  assert speed.get_yscale() == "log"
  assert speed.get_xlabel() == "speed-up over the dense network (timed in turn)"
  assert speed.get_ylabel() == "KL from the dense network, nats"
  assert speed.get_title().startswith("Divergence against measured speed, without training")
  np.testing.assert_allclose(points(speed, "merge")[0], [[1.2, 0.11], [1.5, 0.13]])
  np.testing.assert_allclose(points(speed, "tome")[0], [[1.3, 0.12], [1.6, 0.14]])
  bars = {}
  for collection in speed.collections:
    for (x, low), (_, high) in collection.get_segments():
      bars[round(x, 3)] = (low, high)
  assert set(bars) == {1.2, 1.5, 1.6}
  np.testing.assert_allclose(bars[1.5], [0.13 - 1.96 * 0.02, 0.13 + 1.96 * 0.02])
  np.testing.assert_allclose(bars[1.2], [0.011, 0.11 + 1.96 * 0.5])
  spans = speed.get_subplotspec()
  assert (spans.rowspan.start, spans.rowspan.stop) == (0, 2)


def test_where_no_method_meets_a_speed_up_the_dense_network_is_alone():
  (axes,) = draw_comparison(RESULTS | {"results": [], "missed": [{"said": "…"}]}, "title").axes
  assert points(axes, "dense")[0] == [[4.0, 80.0]]
