from asvit_jax.run import metrics


def test_a_torn_last_line_is_left_out_and_lines_after_the_step_go(tmp_path):
  run = metrics.Metrics(tmp_path, 0)
  for step in (1, 2, 3):
    run.write(step, "train", {"loss": step / 2})
  with metrics.metrics_path(tmp_path).open("a") as file:
    file.write('{"step": 4, "ki')
  assert [line["step"] for line in metrics.read(tmp_path)] == [1, 2, 3]
  metrics.Metrics(tmp_path, 2).write(3, "train", {"loss": 9.0})
  assert [line["loss"] for line in metrics.read(tmp_path, "train")] == [0.5, 1.0, 9.0]
