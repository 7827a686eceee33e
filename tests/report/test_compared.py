from asvit_jax.report.compared import page_of


def row(method, budget, top1, finetuned=False, **more):
  return dict(method=method, budget=budget, top1=top1, share=budget, finetuned=finetuned) | more


DENSE = {"top1": 81.1, "gmacs": 1.25, "share": 1.0}
ROWS = [
  row("merge", 0.65, 80.2),
  row("tome", 0.65, 80.0),
  row("merge", 0.5, 78.1),
  row("tome", 0.5, 77.2),
  row("merge", 0.5, 79.2, finetuned=True),
]


def test_a_chart_has_a_series_a_method_and_the_dense_network():
  plain, tuned = page_of({"dense": DENSE, "results": ROWS}, "title").charts
  points = {s.name: [(p.x, p.y, p.note) for p in s.points] for s in plain.series}
  assert points == {
    "merge": [(65.0, 80.2, "budget 0.65"), (50.0, 78.1, "budget 0.5")],
    "tome": [(65.0, 80.0, "budget 0.65"), (50.0, 77.2, "budget 0.5")],
    "dense": [(100.0, 81.1, "")],
  }
  assert [(s.name, len(s.points)) for s in tuned.series] == [("merge", 1), ("dense", 1)]
  assert plain.level == tuned.level == ("dense", 81.1)


def test_what_was_timed_has_a_chart_against_the_speed_up():
  rows = [r | {"speedup": 1 + i} for i, r in enumerate(ROWS[:2], 1)]
  results = {"dense": DENSE, "results": rows}
  _, speed = page_of(results, "title").charts
  assert {s.name: s.points[0].x for s in speed.series} == {"merge": 2, "tome": 3, "dense": 1}


def test_the_table_has_every_result_and_only_columns_that_some_have():
  (table,) = page_of({"dense": DENSE, "results": ROWS}, "title").tables
  names = [column.name for column in table.columns]
  assert names == ["method", "budget", "top-1, %", "GMACs", "share of dense"]
  assert table.rows[0] == ("merge", 0.65, 80.2, None, 0.65)
  assert table.rows[-2] == ("merge, fine-tuned", 0.5, 79.2, None, 0.5)
  assert table.rows[-1] == ("dense", None, 81.1, 1.25, 1.0)


def test_tiles_name_the_best_at_every_budget():
  tiles = page_of({"dense": DENSE, "results": ROWS}, "title").tiles
  assert [(t.label, t.value, t.note) for t in tiles] == [
    ("Dense", "81.1 %", "top-1"),
    ("Best at budget 0.65", "80.2 %", "merge"),
    ("Best at budget 0.5", "79.2 %", "merge, fine-tuned"),
  ]


def at_speed(rows):
  """Rows that were searched for: the first two at 1.5 times dense, the others at 1.3."""
  return [
    r | {"asked_speedup": 1.5 if i < 2 else 1.3, "speedup": 1.3 + i / 10, "kl": 0.1, "kl_error": e}
    for i, (r, e) in enumerate(zip(rows, (0.01, None, 0.02, 0.03), strict=False))
  ]


def test_divergence_stands_against_the_speed_up_with_intervals():
  results = {"dense": DENSE, "results": at_speed(ROWS[:4])}
  _, speed = page_of(results, "title").charts
  assert speed.log_y
  assert speed.title == "Divergence against measured speed, without training"
  assert (speed.x, speed.y) == (
    "speed-up over the dense network",
    "KL from the dense network, nats; bars: 95 %",
  )
  merge, tome = speed.series
  assert [(p.x, p.y) for p in merge.points] == [(1.3, 0.1), (1.5, 0.1)]
  assert merge.errors == (1.96 * 0.01, 1.96 * 0.02)
  assert merge.points[0].note == "± 0.02 (95 %), budget 0.65"
  assert tome.errors == (0.0, 1.96 * 0.03)


def test_asked_speed_ups_have_tiles_a_column_and_a_line_where_they_are_missed():
  said = "merge cannot reach 2.2: at most 1.90, at 0.1 of the GMACs"
  rows = [row("merge", 0.8, 80.9), *at_speed(ROWS[:4])]
  page = page_of({"dense": DENSE, "results": rows, "missed": [{"said": said}]}, "title", ["a fact"])
  assert page.summary == ("a fact", said)
  assert [(t.label, t.note) for t in page.tiles] == [
    ("Dense", "top-1"),
    ("Best at budget 0.8", "merge"),
    ("Best at speed-up 1.3", "merge"),
    ("Best at speed-up 1.5", "merge"),
  ]
  (table,) = page.tables
  assert table.columns[1].name == "requested speed-up"
  assert [line[1] for line in table.rows] == [None, 1.5, 1.5, 1.3, 1.3, None]
