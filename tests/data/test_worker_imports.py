"""Every data worker imports what it unpickles, so that must be light.

Grain itself imports JAX and Orbax, which nobody can change here: what is held is that ours adds
nothing to what Grain brings, and asks for none of it by itself.
"""

import json

import cloudpickle
import processes
import pytest
import tiny
from image_sets import PREPROCESSING, open_source

from asvit_jax.data import loader

HEAVY = ("jax", "flax", "orbax", "optax", "matplotlib", "tensorboard", "tensorflow")

# Prints which heavy libraries come with `work` beyond those of Grain, and those that a module of
# ours asks for, whether they are there already or not.
WATCHING = """
import builtins, importlib, json, pickle, sys
import grain

def loaded():
  return {{name.partition(".")[0] for name in sys.modules}} & set({heavy})

def watching(name, namespace=None, *rest):
  if (namespace or {{}}).get("__name__", "").startswith("asvit_jax"):
    asked.add(name.partition(".")[0])
  return original(name, namespace, *rest)

of_grain, asked, original = loaded(), set(), builtins.__import__
builtins.__import__ = watching
{work}
assert any(name.startswith("asvit_jax") for name in sys.modules)
print(json.dumps(sorted(loaded() - of_grain | asked & set({heavy}))))
"""


def heavy_imports(work, *arguments, heavy=HEAVY):
  script = WATCHING.format(work=work, heavy=heavy)
  return json.loads(processes.succeed("-c", script, *arguments).splitlines()[-1])


def test_a_worker_of_a_folder_imports_nothing_heavy(folder, tmp_path):
  """It makes a batch of what Grain sends to its workers."""
  keys = {"data.rand_augment": 9.0, "data.color_jitter": 0.4, "data.repeats": 2}
  plan = tiny.plan(tiny.config(folder, **keys))
  dataset = loader.train_dataset(plan, open_source(plan), PREPROCESSING)
  (tmp_path / "dataset").write_bytes(cloudpickle.dumps(dataset))
  work = "pickle.load(open(sys.argv[1], 'rb'))[0]"
  assert not heavy_imports(work, tmp_path / "dataset", heavy=(*HEAVY, "tensorflow_datasets"))


def test_whoever_only_asks_for_names_does_not_pay_for_tfds():
  work = """
from asvit_jax.data import benchmark, convert, images, loader, sources
from ml_collections import ConfigDict
for name in ("digits", "folder", "tfds:imagenet2012"):
  sources.class_names(ConfigDict({"name": name, "dir": "", "classes": "", "train_split": "train"}))
"""
  assert not heavy_imports(work.strip(), heavy=(*HEAVY, "tensorflow_datasets"))


@pytest.mark.parametrize("module", ["jax", "tensorflow_datasets"])
def test_the_watch_sees_what_it_watches_for(module):
  work = f"from asvit_jax.data import loader; exec('import {module}', vars(loader))"
  assert module in heavy_imports(work, heavy=(*HEAVY, "tensorflow_datasets"))
