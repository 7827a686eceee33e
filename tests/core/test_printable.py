import sys
import unicodedata

from asvit_jax.core.printable import error_line, on_a_line, printable


def test_no_character_moves_a_cursor_or_turns_text():
  every = "".join(map(chr, range(sys.maxunicode + 1)))
  left = printable(every)
  assert left.encode()  # no lone surrogates
  controls = {c for c in left if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
  assert controls == {"\n"}
  turning = {c for c in left if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF")}
  isolates = {c for c in left if unicodedata.bidirectional(c) in ("LRI", "RLI", "FSI", "PDI")}
  assert not turning and not isolates


def test_names_of_people_stay_as_they_are():
  for name in ("Käfer", "雪", "a b.jpg", "naïve café", "👩‍🔬", "שלום", "$x^2$", "C:\\new"):
    assert on_a_line(name) == name


def test_escapes_say_what_was_there():
  assert on_a_line("a\x1b]0;title\x07b\n") == "a\\x1b]0;title\\x07b\\n"
  assert printable("one\ntwo\t\u202e\udc80") == "one\ntwo\\x09\\u202e\\udc80"


def test_an_error_is_a_line_but_for_what_is_listed_under_it():
  assert error_line("a\nerror: b is\x1b missing:\n  c\n  d") == (
    "error: a\\nerror: b is\\x1b missing:\n  c\n  d"
  )
