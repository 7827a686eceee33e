from asvit_jax.report.speed import draw_speed


def test_a_point_an_execution_and_the_line_that_all_macs_saved_would_reach():
  results = {
    "dense": {"gmacs": 4.0, "images_per_s": 100.0, "speedup": 1.0},
    "packed": {"gmacs": 2.0, "images_per_s": 180.0, "speedup": 1.8},
  }
  (axes,) = draw_speed(results, "title").axes
  ideal, *points = axes.lines
  x, y = ideal.get_data()
  assert (x[0], y[0]) == (4.0, 100.0)
  assert x.min() < 2.0  # beyond the cheapest
  assert abs(x * y - 400.0).max() < 1e-9
  assert [(point.get_xdata()[0], point.get_ydata()[0]) for point in points] == [(4, 100), (2, 180)]
  assert [point.get_label() for point in points] == ["dense 1.00x", "packed 1.80x"]
