from asvit_jax.commands.quickstart import table


def test_the_table_has_a_line_a_network():
  stages = [{"mean": 33.125, "std": 15.8}, {"mean": 16.2, "std": 8.5}]
  dense = {"top1": 95.55, "gmacs": 0.0198, "share": 1.0, "kept": []}
  pruned = {"top1": 95.2, "gmacs": 0.01, "share": 0.503, "kept": stages}
  head, *lines = table({"dense": dense, "pruned": pruned}).splitlines()
  assert head.split()[:3] == ["top-1", "GMACs", "share"]
  assert [line.split() for line in lines] == [
    ["dense", "95.55", "0.0198", "1.000", "all"],
    ["pruned", "95.20", "0.0100", "0.503", *["33.1", "±", "15.8", "16.2", "±", "8.5"]],
  ]
