"""Measures this machine in ten minutes: every execution's correctness and speed, on any device.

asvit measure --out runs/measure
python -m asvit_jax.measure --quick

It needs neither data nor weights. Correctness comes first: every execution, and every backend that
can run here, against masked. The same command continues where an earlier one ran out of time.
"""

from absl import flags

from asvit_jax.core import outputs, storage

ARGUMENTS = (0, 0)


def define_flags():
  """Defines the flags."""
  outputs.define_directory(
    "out", "runs/measure", "Directory for measure.json and the page, index.html.", _check
  )
  flags.DEFINE_bool("quick", False, "Small settings: the whole in two minutes on a CPU.")
  flags.DEFINE_integer(
    "seconds", None, "Seconds to take at most; by default 600, or 120 if quick.", 1, 10**6
  )


def main(_):
  """Measures; returns a dictionary.

  Returns:
    `correct`, whether everything that was compared with masked agrees, None if not all of it could
    be compared in time; `ok`, false if something differs; the paths `page` and `json`; and the
    numbers of parts that are `done` and `left`.
  """
  import jax

  from asvit_jax.measure import page, parts, running, settings

  given = flags.FLAGS
  chosen = settings.QUICK if given.quick else settings.FULL
  listed = parts.all_parts(chosen, jax.default_backend())
  measured = running.run(given.out, listed, given.seconds or chosen.seconds, given.quick)
  done = sum(part["status"] == "done" for part in measured["parts"].values())
  directory = storage.path(given.out)
  return {
    "correct": measured["correct"],
    "ok": measured["correct"] is not False,
    "page": str(directory / page.NAME),
    "json": str(directory / running.NAME),
    "done": done,
    "left": len(listed) - done,
  }


def _check(directory, name):
  storage.check_writable(directory, name, ["measure.json", "index.html"])
