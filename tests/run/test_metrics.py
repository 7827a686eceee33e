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


def events(workdir):
  """{step: losses in TensorBoard's files}."""
  from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

  found = {}
  for file in sorted((workdir / "tensorboard").iterdir()):
    for event in EventFileLoader(str(file)).Load():
      for value in event.summary.value:
        found.setdefault(event.step, []).append((value.tensor.float_val[0], event.wall_time))
  return found


def test_tensorboard_is_rewound_to_the_step_that_a_run_goes_on_from(tmp_path):
  run = metrics.Metrics(tmp_path, 0)
  for step in (1, 2, 3):
    run.write(step, "train", {"loss": step / 2})
  before = events(tmp_path)
  (file,) = (tmp_path / "tensorboard").iterdir()
  with file.open("ab") as torn:
    torn.write(b"half a record")
  metrics.Metrics(tmp_path, 2).write(3, "train", {"loss": 9.0})
  after = events(tmp_path)
  assert {step: [loss for loss, _ in values] for step, values in after.items()} == {
    1: [0.5],
    2: [1.0],
    3: [9.0],
  }
  assert (after[1], after[2]) == (before[1], before[2])  # when it was, too
  metrics.Metrics(tmp_path, 0)
  assert events(tmp_path) == {}
