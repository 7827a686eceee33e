"""What a TPU's compiler says of a program, added up; texts as libtpu 0.0.42 writes them."""

import pytest

from asvit_jax.targets.times import count_cycles


def operation(name, kind, cycles=None, more=""):
  said = "" if cycles is None else f', backend_config={{"estimated_cycles":"{cycles}"}}'
  return f"  %{name} = f32[8]{{0:T(128)}} {kind}(%x){more}{said}"


def program(*lines, others=""):
  body = "\n".join(lines)
  return f"HloModule jit_f\n\n{others}\nENTRY %main.1 (x: f32[8]) -> f32[8] {{\n{body}\n}}\n"


def computation(name, *lines):
  return "\n".join([f"%{name} (x: f32[8]) -> f32[8] {{", *lines, "}", ""])


def test_the_operations_of_the_program_add_up():
  fused = computation("fused", operation("inner", "add", 1000))  # the fusion says it for them
  text = program(
    operation("x", "parameter"),
    operation("one", "fusion", 25, ", kind=kLoop, calls=%fused"),
    operation("two", "convolution", 17),
    others=fused,
  )
  assert count_cycles(text) == 42


@pytest.mark.parametrize(("known", "times"), [("5", 5), (None, 1)])
def test_a_loop_counts_as_often_as_it_is_known_to_run(known, times):
  trips = "" if known is None else f', backend_config={{"known_trip_count":{{"n":"{known}"}}}}'
  loop = operation("loop", "while", None, f", condition=%ends, body=%again{trips}")
  others = computation("again", operation("a", "add", 7)) + computation(
    "ends", operation("b", "compare", 3)
  )
  assert count_cycles(program(loop, operation("c", "add", 2), others=others)) == 2 + 7 * times


@pytest.mark.parametrize(
  "attributes",
  [
    ", branch_computations={%cheap, %dear}",
    ", true_computation=%dear, false_computation=%cheap",
  ],
)
def test_of_a_conditional_the_dearest_branch_counts(attributes):
  others = computation("cheap", operation("a", "add", 1)) + computation(
    "dear", operation("b", "call", None, ", to_apply=%deep")
  )
  others += computation("deep", operation("c", "add", 30), operation("d", "add", 4))
  assert count_cycles(program(operation("e", "conditional", 5, attributes), others=others)) == 39
