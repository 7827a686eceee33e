"""Compiles steps, evaluation and packed inference for TPUs and GPUs, which need not be here.

python -m asvit_jax.targets.check --out runs/targets.jsonl --only "v5e:1x1 as_deit_s.*pmap"

What stands in the file already is not compiled again, so an interrupted check goes on.
"""

import json
import re

from absl import flags

from asvit_jax.core import command, outputs, schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log

# A line of the file, as far as it is read here.
_NUMBERS = ("images", "memory_mb", "memory_available_mb", "compile_s", "compile_cpu_s")
_ROW = schema.table(
  {name: schema.number() for name in _NUMBERS}
  | {name: schema.text() for name in ("target", "recipe", "program")}
  | {"fits": schema.BOOLEAN},
  required=("target", "recipe", "program", "fits", *_NUMBERS),
)


def define_flags():
  """The flags of the command line; not at import, where they would meet those of other tools."""
  outputs.define("out", "runs/targets.jsonl", "File that gets a line of JSON a program.")
  flags.DEFINE_string("only", "", "A regular expression: the checks to do, by their names.")


def main(_):
  """Compiles what is missing; returns how many there are, and whether all fit."""
  from asvit_jax.targets import checking, names, process

  path = storage.path(flags.FLAGS.out)
  lines = storage.read(path).splitlines() if path.exists() else []
  known = [schema.loads(line, _ROW, f"--out {path}", "give another file") for line in lines]
  done = {checking.name(row): row for row in known}
  chosen = [c for c in checking.all_of_them() if re.search(flags.FLAGS.only, checking.name(c))]
  if not chosen:
    raise InputError(
      f"--only {flags.FLAGS.only!r} is found in no check, such as "
      f"{checking.name(checking.all_of_them()[0])!r}"
    )
  for i, check in enumerate(chosen, 1):
    if checking.name(check) in done:
      continue
    log(f"{i}/{len(chosen)}  {checking.name(check)}")
    answer = process.run({"what": "check"} | check, names.parse(check["target"]))
    done[checking.name(check)] = check | answer
    storage.write(path, "".join(json.dumps(row) + "\n" for row in done.values()), "the checks")
  rows = [done[checking.name(check)] for check in chosen]
  log(f"\n{table(rows)}")
  return {"out": str(path), "checks": len(rows), "ok": all(row["fits"] for row in rows)}


def table(rows):
  """Results as a table in Markdown."""
  lines = ["| target | network | program | images a device | MiB a device | of | compiled in |"]
  lines.append("|---|---|---|---|---|---|---|")
  lines += [
    f"| {row['target']} | {row['recipe']} | {row['program']} | {row['images']} "
    f"| {row['memory_mb']:,.0f} | {row['memory_available_mb']:,.0f} "
    f"| {row['compile_s']:,.0f} s ({row['compile_cpu_s']:,.0f} s of CPU) |"
    for row in rows
  ]
  return "\n".join(lines)


if __name__ == "__main__":
  define_flags()
  command.run(main)
