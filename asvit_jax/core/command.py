"""What all command lines share: clear errors, progress on stderr, one JSON line on stdout."""

import contextlib
import json
import os
import re
import signal
import sys

from absl import app, flags, logging

from asvit_jax.core import platforms, recipes, stopping, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint

# Flags of all tools that name files or directories: whether they can be opened is known at once.
_PATHS = (
  *("workdir", "weights", "artifact", "images", "out", "plot", "picture", "per-image"),
  *("save-weights", "report", "per-class", "features", "results"),
)


def run(main, least=0, most=0, known_keys=list):
  """Runs a tool: parses flags, calls `main`, prints its result as the last line of stdout.

  Bad input ends with one line on stderr and exit status 2, before any traceback; a result that
  says `"ok": false` with exit status 1; one that says `"finished": false` with that of the signal
  which stopped it, 143 for SIGTERM.

  Args:
    main: function of the positional arguments that returns a JSON-serialisable dictionary.
    least: number of positional arguments it needs.
    most: number it takes; None for any.
    known_keys: function that returns the dotted keys of configs, for errors about other ones.
  """

  def parse(argv):
    with parsing(known_keys):
      rest = flags.FLAGS(argv)
      if "config" in flags.FLAGS and flags.FLAGS.config is not None:
        _ = flags.FLAGS.config.is_locked  # a file that does not load says so at its first use
      return rest

  def guarded(argv):
    logging.set_verbosity(logging.WARNING)  # JAX, TFDS and Orbax narrate at INFO
    given = len(argv) - 1
    if given < least or (most is not None and given > most):
      _fail(f"{given} positional arguments {argv[1:]}, expected {least}: see {argv[0]} --help")
    try:
      for name in _named_paths():
        storage.path(name)
      result = main(argv[1:])
    except InputError as error:
      _fail(error)
    except PermissionError as error:
      _fail(f"{error.filename} cannot be read or written ({error.strerror}): check its permissions")
    except Exception as error:
      said = platforms.describe(error)
      if said is None:
        raise
      _fail(said)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # nobody hears it any more
      sys.stderr.flush()
    print(json.dumps(result), flush=True)
    if result.get("ok") is False:
      sys.exit(1)
    if result.get("finished") is False:  # a run that was told to stop
      from asvit_jax.core.hosts import StopSignal

      stopping.leave(StopSignal.last or signal.SIGTERM)

  with parsing(known_keys):
    sys.argv[1:] = recipes.in_place_of_names(sys.argv[1:])
  app.run(guarded, flags_parser=parse)


@contextlib.contextmanager
def parsing(known_keys=list):
  """Where what is wrong with a command line ends the process as in `run`; `known_keys` as there."""
  try:
    yield
  except InputError as error:
    _fail(error)
  # What absl and ml_collections raise for a bad flag, a missing config file or an unknown key.
  except (flags.Error, OSError, LookupError, AttributeError, TypeError, ValueError) as error:
    _fail(_said(error, known_keys))
  except SyntaxError as error:
    _fail(f"{error.filename} line {error.lineno}: {error.msg}")
  except (NameError, ImportError) as error:
    _fail(f"the file of --config: {type(error).__name__}: {error}")


def _named_paths():
  """What flags, the config and the environment name that may be in a store not to be opened."""
  given = flags.FLAGS
  found = [given[name].value for name in _PATHS if name in given]
  if "config" in given and given.config is not None:
    found.append(given.config.get("init_from"))
  # JAX itself would warn at every program, and keep none.
  return filter(None, [*found, os.environ.get("JAX_COMPILATION_CACHE_DIR")])


def _said(error, known_keys):
  """An error of absl or ml_collections in a line."""
  text = str(error if isinstance(error, OSError) or not error.args else error.args[0])
  # ml_collections hands on the quoted form of its own message.
  text = text.replace("\\n", "\n").replace("\\'", "'").strip()
  flag, traced, trace = text.partition(" Error whilst parsing config file:")
  if not traced:
    # Of a flag; of a file, with all the keys that there are after it.
    unknown = re.fullmatch(r"\W*(\w+)'(?:\s*Did you mean [^?]*\?)?\W*", text)
    unknown = unknown or re.match(r'\W*Key "(\w+)" does not exist', text)
    if unknown is None:
      text = " ".join(text.split())
      return text + _choice_meant(text)
    known = known_keys()
    key = _as_given(unknown[1], known)
    return f"the config has no key {key!r}{hint(key, known)}"
  # What a config file raises comes with the whole way to it.
  last = trace.split("\n")[-1].strip()
  kind, _, message = last.partition(": ")
  if kind.rpartition(".")[2] == InputError.__name__:
    return f"{flag} {message}"
  files = re.findall(r'File "([^"]+)", line (\d+)', trace)
  return f"{flag} {' line '.join(files[-1])}: {last}" if files else f"{flag} {last}"


def _as_given(key, known):
  """With its section, the unknown key that a flag gives."""
  given = (re.match(r"--?(?:no)?config\.([\w.]+)", argument) for argument in sys.argv)
  paths = [match[1] for match in given if match]
  return next((path for path in paths if path not in known and key in path.split(".")), key)


def _choice_meant(text):
  """For a value that is none of those a flag takes, or a --config that is not there."""
  choice = re.search(r"=(\S+): value should be one of <([^>]*)>", text)
  if choice is not None:
    return hint(choice[1], choice[2].split("|"))
  missing = re.search(r"Failed loading config file .* No such file or directory: '([^']*)'", text)
  return "" if missing is None else hint(missing[1].rpartition("/")[2], recipes.names())


def _fail(error):
  print(f"error: {error}", file=sys.stderr, flush=True)
  sys.exit(2)
