"""What no flag may write over, because another flag, or the config, leads to it: it is read."""

from absl import flags
from ml_collections import ConfigDict

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.outputs import Kept

_FILES = ("data.train_labels", "data.eval_labels", "data.classes", "criterion.class_weights")
_WEIGHTS = ("init_from", "teacher_from")


def of_source(source, what="the run"):
  """Of --workdir or --weights: the files of a run; the rest of its directory is free."""
  from asvit_jax.run import layout

  if not layout.is_run(source):
    return []
  names = (*layout.FILES, *layout.DIRECTORIES)
  return [
    Kept(storage.path(source) / name, f"{name} of {what} {source}", lambda path: True)
    for name in names
  ]


def of_artifact(artifact):
  """Of --artifact: all of it, and its note."""
  from asvit_jax.export.notes import note_path

  note = note_path(artifact)
  return [Kept(artifact, "--artifact", lambda path: True), Kept(note, "the note of --artifact")]


def of_images(directory, what="--images", only_images=True):
  """Of a directory of images: those there are. What has no suffix of one is nobody's to read."""
  from asvit_jax.data import files

  def is_read(path):
    return path.is_file() and (not only_images or files.has_suffix_of_images(path.name))

  return [Kept(directory, f"what is in {what}", is_read)]


def of_config_flag(config):
  """Of --config: its file, and what the config leads to."""
  if not isinstance(config, ConfigDict):  # it could not be loaded, which its users say
    return []
  file = getattr(flags.FLAGS["config"], "config_filename", None)
  if not isinstance(file, str):  # the config is a run's, changed by keys
    return of_config(config)
  return [Kept(file.partition(":")[0], "the file of --config"), *of_config(config)]


def of_config(config):
  """Of a config: lists and weights that it names, and the images in `data.dir`."""
  found = [Kept(path, f"--config.{key}") for key in _FILES if (path := _text(config, key))]
  for key in _WEIGHTS:
    path = _text(config, key)
    if path and not path.startswith("hf:"):
      found.append(Kept(path, f"--config.{key}"))
      if not storage.in_bucket(path):  # which need not be asked: no flag may need it
        found += of_source(path, f"the run of --config.{key}")
  directory = _text(config, "data.dir")
  if directory:
    folder = _text(config, "data.name") == "folder"  # other sources may read any file
    found += of_images(directory, f"--config.data.dir {directory}", only_images=folder)
  return found


def _text(config, key):
  """The path in a config under a dotted key; "" of one that has none.

  What is no path here is none to write to, either; whoever reads it says so. Of a run from another
  machine, a store may not be known, and need not be.
  """
  for part in key.split("."):
    config = config.get(part) if hasattr(config, "get") else None
  try:
    storage.path(config)
  except InputError:
    return ""
  return config if isinstance(config, str) else ""
