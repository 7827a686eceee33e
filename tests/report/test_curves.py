import numpy as np
from pictures import metrics_lines

from asvit_jax.report import curves


def plotted(axes):
  """{label: (x, y)} of an axes; unlabelled lines by their number."""
  lines = enumerate(axes.lines)
  return {
    i if line.get_label().startswith("_") else line.get_label(): line.get_data()
    for i, line in lines
  }


def panels(figure):
  return {axes.get_title().split("(")[0].strip(): axes for axes in figure.axes}


def test_curves_are_the_values_of_the_metrics():
  lines = metrics_lines(pruned=True)
  drawn = panels(curves.draw_curves(lines, target_gmacs=0.6))
  train = [line for line in lines if line["kind"] == "train"]
  steps = [line["step"] for line in train]

  def check(curve, x, y):
    np.testing.assert_allclose(curve[0], x)
    np.testing.assert_allclose(curve[1], y)

  loss = plotted(drawn["training loss and its terms, unweighted"])
  for name in ("loss", "classification", "distillation", "budget"):
    check(loss[name], steps, [line[name] for line in train])  # too few to smooth
  check(plotted(drawn["evaluation: top-1, %"])[0], [50, 100], [25, 50])
  gmacs = plotted(drawn["GMACs per image"])
  check(gmacs["training"], steps, [line["gmacs"] for line in train])
  check(gmacs["evaluation"], [50, 100], [0.7, 0.7])
  np.testing.assert_allclose(gmacs["target 0.6"][1], 0.6)
  kept = plotted(drawn["patches kept by each stage"])
  thresholds = plotted(drawn["threshold of each stage"])
  for stage in range(2):
    check(kept[f"stage {stage + 1}"], steps, [line["kept"][stage] for line in train])
    check(thresholds[f"stage {stage + 1}"], steps, [line["thresholds"][stage] for line in train])
  check(kept[3], [50, 100], [4, 2])
  check(plotted(drawn["learning rate"])[0], steps, [0.1] * 10)


def test_a_dense_run_has_no_panels_of_pruning():
  figure = curves.draw_curves(metrics_lines(pruned=False))
  assert set(panels(figure)) == {"training loss", "evaluation: top-1, %", "learning rate"}


def test_smoothing_is_a_centred_mean_that_keeps_straight_lines():
  values = np.arange(200.0)
  np.testing.assert_allclose(curves._smooth(values)[5:-5], values[5:-5])
  noise = np.random.default_rng(0).standard_normal(200)
  assert curves._smooth(noise).std() < 0.5 * noise.std()


def test_curves_have_a_gap_where_a_step_was_skipped():
  lines = metrics_lines(pruned=True)
  lines[2]["loss"] = lines[2]["gmacs"] = None  # what is not finite is written as null
  drawn = panels(curves.draw_curves(lines))
  assert np.isnan(plotted(drawn["GMACs per image"])["training"][1]).sum() == 1
