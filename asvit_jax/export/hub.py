"""Pushes artifacts to a repository of the Hugging Face hub, with a model card."""

import pathlib
import re
import shutil
import tempfile

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.export.card import card
from asvit_jax.export.notes import note_path, read_note

# The file that `hf:OWNER/NAME` and timm load.
WEIGHTS = "model.safetensors"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def check(repository):
  """Raises InputError if nothing could be pushed: invalid name, missing library or token.

  Args:
    repository: OWNER/NAME.
  """
  if not _REPOSITORY.fullmatch(repository):
    raise InputError(f"--push-to-hub {repository!r}: expected OWNER/NAME")
  _ask(repository, lambda api: api.whoami())


def push(path, repository, results=None, private=False):
  """Pushes an artifact, its note and a README.md in one commit; creates the repository if needed.

  Safetensors weights are named `model.safetensors` there; files of the same names are replaced.

  Args:
    path: path of the artifact, as `writing.export` wrote it.
    repository: OWNER/NAME.
    results: results for the card, or None; see `card`.
    private: whether a new repository is private.

  Returns:
    Address of the repository.

  Raises:
    InputError: the hub refuses or cannot be reached.
  """
  note = read_note(path)
  name = WEIGHTS if note["format"] == "safetensors" else storage.path(path).name
  with tempfile.TemporaryDirectory() as directory, storage.local(path) as artifact:
    folder = pathlib.Path(directory)
    copy = shutil.copytree if artifact.is_dir() else shutil.copyfile
    copy(artifact, folder / name)
    (folder / f"{name}.json").write_bytes(storage.read(note_path(path)))
    (folder / "README.md").write_text(card(note, repository, name, results), encoding="utf-8")

    def upload(api):
      url = api.create_repo(repository, private=private, exist_ok=True)
      message = f"{note['format']} written by asvit_jax"
      api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
      return str(url)

    return _ask(repository, upload)


def _ask(repository, question):
  """The result of a function of `huggingface_hub.HfApi`; raises InputError for any failure."""
  try:
    import huggingface_hub
  except ImportError as error:
    raise InputError(
      f"--push-to-hub {repository} needs huggingface_hub, which is not installed: "
      "`pip install huggingface_hub`"
    ) from error
  try:
    return question(huggingface_hub.HfApi())
  except Exception as error:  # the hub, the network and files raise errors of no common type
    raise InputError(
      f"--push-to-hub {repository}: {type(error).__name__}: {' '.join(str(error).split())[:300]}; "
      "check the network and the token, `hf auth login`"
    ) from error
