"""Classes that consist of links to images in a common directory beside them, a pool.

`val/cat/1.jpg` may be a link to `val/all_images/1.jpg`. If `all_images` were a class, too, as all
directories are by default, the image would have two classes.
"""

import os

from asvit_jax.core.errors import InputError
from asvit_jax.data import files
from asvit_jax.data.sources.classes import listing, normal


def pools(root, classes):
  """Sorted names of the directories that are not classes but targets of the classes' links.

  The links of a class with images of its own do not count: their target may be a forgotten class.

  Args:
    root: directory of the class directories.
    classes: keys of the classes.
  """
  names = files.subdirectories(root)
  others = _real_paths(root, [name for name in names if normal(name) not in classes])
  found = set()
  for name in names if others else ():
    if normal(name) in classes and _is_of_links(os.path.join(root, name)):
      found |= _led_to(root, name, others)
    if len(found) == len(others):
      break
  return sorted(found)


def check(root, found):
  """Raises InputError for classes all of whose images are links into other classes.

  Args:
    root: directory of the class directories.
    found: the directory's `Listing`.
  """
  names = [name for name, *_ in found.directories]
  linked = [
    name
    for name, count, _, left in found.directories
    if not count and any(kind.endswith(f"({files.LINK_OUT})") for kind in left)
  ]
  others = _real_paths(root, names) if linked else {}
  into = sorted({pool for name in linked for pool in _led_to(root, name, others) if pool != name})
  if into:
    raise InputError(
      f"{root}: all images of {listing(linked)} are links into {listing(into)}, which is a class "
      f"as well: move {listing(into)} out of {root}, or name the classes without it in a file "
      "(data.classes)"
    )


def _is_of_links(directory):
  """Whether a directory is a link, or contains images and directories only as links."""
  return os.path.islink(directory) or all(
    entry.is_symlink() or not (files.is_image(entry.name) or files.leads_to_directory(entry))
    for entry in files.entries(directory)
  )


def _real_paths(root, names):
  """{name: real path} of directories in a root."""
  return {name: os.path.realpath(os.path.join(root, name)) for name in names}


def _led_to(root, name, others):
  """The set of other directories to which a directory, or a link directly in it, leads.

  Args:
    root: the root.
    name: name of the directory.
    others: `_real_paths` of the other directories.
  """
  directory = os.path.join(root, name)
  links = (entry.path for entry in files.entries(directory) if entry.is_symlink())
  # Many links lead to the same directory.
  reals = {os.path.realpath(directory), *(os.path.dirname(os.path.realpath(p)) for p in links)}
  above = {way for real in reals for way in files.ways(real)}
  return {other for other, real in others.items() if real in above}
