"""Inputs that no output flag may overwrite, because another flag or the config names them."""

from absl import flags
from ml_collections import ConfigDict

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.outputs import Kept

_FILES = ("data.train_labels", "data.eval_labels", "data.classes", "criterion.class_weights")
_WEIGHTS = ("init_from", "teacher_from")


def of_source(source, what="the run"):
  """Protected by --workdir or --weights: the files of a run, but not others in its directory."""
  from asvit_jax.run import layout

  if not layout.is_run(source):
    return []
  names = (*layout.FILES, *layout.DIRECTORIES)
  return [
    Kept(storage.path(source) / name, f"{name} of {what} {source}", lambda path: True)
    for name in names
  ]


def of_artifact(artifact):
  """Protected by --artifact: the artifact and its note."""
  from asvit_jax.export.notes import note_path

  note = note_path(artifact)
  return [Kept(artifact, "--artifact", lambda path: True), Kept(note, "the note of --artifact")]


def of_file(path, what):
  """Protected by a flag that names a file to read."""
  return [Kept(path, what)]


def of_images(directory, what="--images", only_images=True):
  """Protected by a directory of images: the images in it; other files are never read."""
  from asvit_jax.data import files

  def is_read(path):
    return path.is_file() and (not only_images or files.has_suffix_of_images(path.name))

  return [Kept(directory, f"what is in {what}", is_read)]


def of_config_flag(config):
  """Protected by --config: its file, and the files that the config names."""
  if not isinstance(config, ConfigDict):  # it could not be loaded, which is reported elsewhere
    return []
  file = getattr(flags.FLAGS["config"], "config_filename", None)
  if not isinstance(file, str):  # the config of a run, changed by keys
    return of_config(config)
  return [Kept(file.partition(":")[0], "the file of --config"), *of_config(config)]


def of_config(config):
  """Protected by a config: its files of labels and classes, its weights and its images."""
  found = [Kept(path, f"--config.{key}") for key in _FILES if (path := _text(config, key))]
  for key in _WEIGHTS:
    path = _text(config, key)
    if path and not path.startswith("hf:"):
      found.append(Kept(path, f"--config.{key}"))
      if not storage.in_bucket(path):  # checking a bucket may be slow and is not needed
        found += of_source(path, f"the run of --config.{key}")
  directory = _text(config, "data.dir")
  if directory:
    folder = _text(config, "data.name") == "folder"  # other sources may read any file
    found += of_images(directory, f"--config.data.dir {directory}", only_images=folder)
  return found


def _text(config, key):
  """The path in a config under a dotted key, or "".

  Invalid paths count as "": whoever reads the path reports the error. In the config of a run from
  another machine, the store may be unknown here, and need not be known.
  """
  for part in key.split("."):
    config = config.get(part) if hasattr(config, "get") else None
  try:
    storage.path(config)
  except InputError:
    return ""
  return config if isinstance(config, str) else ""
