"""The commands of README.md, taken from it and run in their order, with a network that is small."""

import dataclasses
import re
import shlex
import shutil

import pytest
import tiny
from command_lines import run

from asvit_jax import vit
from asvit_jax.commands import COMMANDS
from asvit_jax.core.errors import InputError

# The network of these, in place of DeiT-T and ImageNet's thousand classes.
SMALL = {"width": 12, "heads": 3, "image_size": 32, "patch_size": 8, "num_classes": 3, "depth": 4}
SMALL |= {"prune_before": (1, 2, 3)}
SMALL_FLAGS = [f"--config.model.{key}={value}" for key, value in SMALL.items()]


def section(repository, title):
  """What stands under a heading of README.md."""
  text = (repository / "README.md").read_text()
  return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL).group(1)


def commands(text):
  """The command lines of its blocks, as (name, arguments), with the variables put in."""
  lines, variables = [], {}
  for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
    for line in block.replace("\\\n", " ").splitlines():
      words = shlex.split(line, comments=True)
      if len(words) == 1 and re.match(r"[A-Z]=", words[0]):
        variables[words[0][0]] = words[0][2:]
      elif words:
        assert words[0] == "python", line
        words = [re.sub(r"\$([A-Z])", lambda found: variables[found[1]], word) for word in words]
        lines.append((words[1].removesuffix(".py"), words[2:]))
  return lines


def test_the_commands_of_the_paper_fail_for_want_of_imagenet_alone(repository, monkeypatch):
  """Each row of the table, and the first in full: flags, recipe and budget are right."""
  text = section(repository, "Reproduce the paper")
  full = commands(text)
  assert [name for name, _ in full] == ["train", "evaluate"]
  tried = [full[0][1]]
  for row in re.findall(r"^\| AS-.*?\| (.*?) \|", text, re.MULTILINE):
    recipe, *others = (words for code in re.findall(r"`(.*?)`", row) for words in code.split())
    budgets = [word for word in others if word.startswith(":")]
    keys = [word for word in others if word.startswith("--")]
    for config in (recipe, *(recipe.partition(":")[0] + budget for budget in budgets)):
      tried.append(
        ["--config", f"configs/{config}", *keys, "--workdir=run", "--config.data.dir=DIR"]
      )
  assert len(tried) == 7  # the published networks, and the command in full
  monkeypatch.chdir(repository)
  for arguments in tried:
    with pytest.raises(InputError, match="DIR"):
      run("train", *arguments, "--dry-run")


@pytest.mark.slow
def test_the_command_line_section_runs_from_its_first_line_to_its_last(
  repository, tmp_path, monkeypatch, short_ladders
):
  found = commands(section(repository, "Command line"))
  assert [name for name, _ in found] == [
    *("evaluate", "train", "compare", "predict", "export", "benchmark")
  ]
  assert {name for name, _ in found} < set(COMMANDS)
  monkeypatch.chdir(tmp_path)
  (tmp_path / "configs").symlink_to(repository / "configs")
  sizes = {key.removeprefix("num_"): value for key, value in SMALL.items()}
  arch = dataclasses.replace(vit.VARIANTS["deit_t"], **sizes)
  tiny.network(arch, variant="deit_t").dense.save("deit_tiny_patch16_224.safetensors")
  tiny.write_folder(tmp_path / "DIR")
  photos = tmp_path / "DIR" / "train" / "ant"
  shutil.copytree(photos, tmp_path / "photos")
  shutil.copy(photos / "0.jpg", tmp_path / "photo.jpg")
  results = {}
  for name, arguments in found:
    small = SMALL_FLAGS if "--config" in arguments else []
    if name == "train":
      small = [*small, "--config.total_steps=2", "--config.batch_size=8"]
    results[name] = run(name, *arguments, *small)
  assert results["evaluate"]["images"] == 10
  assert results["train"]["step"] == 2
  for made in ("pruned.safetensors", "runs/report/index.html", "tokens.png", "pruned.zip.json"):
    assert (tmp_path / made).is_file(), made
