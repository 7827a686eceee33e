"""What all commands share: clear errors, progress on stderr, one JSON line on stdout."""

import contextlib
import os
import re
import signal
import sys

from absl import app, flags, logging

from asvit_jax.core import (
  failures,
  outputs,
  platforms,
  recipes,
  stopping,
  storage,
  streams,
  terminal,
)
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint, percent_hint
from asvit_jax.core.printable import error_line
from asvit_jax.core.progress import log

# Flags that name inputs, in any command; their paths are checked before any work.
_INPUTS = ("workdir", "weights", "artifact", "images", "results")
_EXPECTED = "expected a config such as asvit_jax.config.base() returns"
_LONG = 1000  # characters of a library's message
# {start of a message of Python about a text: ours}.
_PARSERS = {
  "could not convert string to float": "expected a number",
  "invalid literal for int()": "expected a whole number",
}


def run(main, least=0, most=0, known_keys=dict):
  """Runs a command: parses the flags, calls `main`, prints its result as the last line of stdout.

  Exit status: 2, with one line on stderr, for errors that the user can fix (see `failures`); 1 for
  a result with `"ok": false`, or if stdout cannot be written; for a result with `"finished":
  false`, the status of the signal that stopped the run, 143 for SIGTERM. A traceback indicates a
  bug.

  Args:
    main: function of the positional arguments that returns a dictionary of values that `plain`
      accepts.
    least: smallest number of positional arguments.
    most: largest number of positional arguments; None for any.
    known_keys: function that returns {dotted key of configs: its type and range in words}, for
      errors about keys and values.
  """

  def parse(argv):
    with parsing(known_keys):
      try:
        rest = flags.FLAGS(argv)
      except flags.Error:
        _check_config()  # else absl would report a config that failed to load as missing
        raise
      _check_config()
      return rest

  def guarded(argv):
    logging.set_verbosity(logging.WARNING)  # JAX, TFDS and Orbax log much at INFO
    given = len(argv) - 1
    if given < least or (most is not None and given > most):
      _fail(f"{given} positional arguments {argv[1:]}, expected {least}: see {argv[0]} --help")
    try:
      platforms.check_flags()
      for name in _named_paths():
        storage.path(name)
      outputs.check(_INPUTS, argv[1:])
      result = main(argv[1:])
    except Exception as error:
      said = failures.describe(error)
      if said is None:
        raise
      _fail(_as_typed(said))
    streams.say(result)
    if result.get("ok") is False:
      sys.exit(1)
    if result.get("finished") is False:  # a run that was told to stop
      from asvit_jax.core.hosts import StopSignal

      stopping.leave(StopSignal.last or signal.SIGTERM)

  terminal.guard()
  streams.prepare()
  with parsing(known_keys):
    sys.argv[1:] = recipes.in_place_of_names(sys.argv[1:])
  with streams.flushed():  # also the output of --help
    app.run(guarded, flags_parser=parse)


@contextlib.contextmanager
def parsing(known_keys=dict):
  """Ends the process as `run` does if parsing the command line fails; `known_keys` as for `run`."""
  try:
    yield
  except InputError as error:
    _fail(error)
  # absl and ml_collections raise these for a bad flag, a missing config file or an unknown key.
  except (flags.Error, OSError, LookupError, AttributeError, TypeError, ValueError) as error:
    _fail(_said(error, known_keys))
  except SyntaxError as error:
    place = f"{error.filename} line {error.lineno}" if error.lineno else "the file of --config"
    _fail(f"{place}: {error.msg}")
  except (Exception, SystemExit) as error:
    place, message = _line_of_config(error), " ".join(str(error).split())[:_LONG]
    if place is not None:
      _fail(f"{place}: {type(error).__name__}{': ' if message else ''}{message}")
    said = None if isinstance(error, SystemExit) else failures.describe(error)
    if said is None:
      raise
    _fail(said)


def _check_config():
  """Raises InputError if the file of --config could not be loaded or returned no config."""
  if "config" not in flags.FLAGS or not flags.FLAGS["config"].present:
    return
  from ml_collections import ConfigDict  # slow to import, and not every command has a config

  flag = flags.FLAGS["config"]
  with contextlib.suppress(AttributeError):
    _ = flag.value.is_locked  # a file that failed to load raises at its first use
  if not isinstance(flag.value, ConfigDict):
    raise InputError(
      f"get_config() of --config {flag.config_filename} returns {type(flag.value).__name__}, "
      f"{_EXPECTED}"
    )


def _line_of_config(error):
  """The file and line of a config that raised an error or through which it passed, or None."""
  trace, found = error.__traceback__, None
  while trace is not None:
    code = trace.tb_frame
    if code.f_globals.get("__name__") == "config_config":  # ml_collections' name for the module
      found = f"{code.f_code.co_filename} line {trace.tb_lineno}"
    trace = trace.tb_next
  return found


def _named_paths():
  """All paths that flags, the config and the environment name, to check their stores."""
  given = flags.FLAGS
  for name in _INPUTS:
    if name in given and given[name].value == "":
      raise InputError(f"--{name} is empty: give a path, or leave the flag out")
  found = [given[name].value for name in _INPUTS if name in given]
  found += outputs.named().values()
  if "config" in given and given.config is not None:
    found.append(given.config.get("init_from"))
  # JAX itself would warn for every program and cache none.
  return filter(None, [*found, os.environ.get("JAX_COMPILATION_CACHE_DIR")])


def _said(error, known_keys):
  """One line for an error of absl or ml_collections."""
  text = str(error if isinstance(error, OSError) or not error.args else error.args[0])
  # ml_collections passes on its own message in quoted form.
  text = text.replace("\\n", "\n").replace("\\'", "'").strip()
  if isinstance(error, flags.UnrecognizedFlagError):
    return _unknown_flag(error.flagname, known_keys)
  value = re.fullmatch(r"flag --([\w.-]+)=(.*?): (.*)", text, re.DOTALL)
  if value is not None and isinstance(error, flags.IllegalFlagValueError):
    text = _bad_value(*value.groups(), known_keys)
  flag, traced, trace = text.partition(" Error whilst parsing config file:")
  if not traced:
    if "'config_config' has no attribute 'get_config'" in text:
      return "the file of --config has no function get_config, which returns a config"
    # The first pattern matches errors from a flag, the second those from a file.
    unknown = re.fullmatch(r"\W*(\w+)'(?:\s*Did you mean [^?]*\?)?\W*", text)
    unknown = unknown or re.match(r'\W*Key "(\w+)" does not exist', text)
    if unknown is None:
      place = None if isinstance(error, (flags.Error, OSError)) else _line_of_config(error)
      text = " ".join(text.split())[:_LONG]
      if place is not None:
        return f"{place}: {type(error).__name__}: {text}"
      other = re.match(r"Attribute <class '([\w.]+)'>", text)
      if other is not None:
        return f"get_config() of the file of --config returns {other[1]}, {_EXPECTED}"
      if isinstance(error, KeyError):
        return f"the config has no key {text!r}"
      missing = re.search(r"Failed loading config file .* (No such file [^:]*): '([^']*)'", text)
      if missing is not None:
        return _no_config(missing[2], missing[1])
      return text + _choice_meant(text)
    known = known_keys()
    key = _as_given(unknown[1], known)
    return f"the config has no key {key!r}{hint(key, known)}"
  # An error inside a config file comes with its whole traceback as text.
  last = trace.split("\n")[-1].strip()
  kind, _, message = last.partition(": ")
  if kind.rpartition(".")[2] == InputError.__name__:
    return f"{flag} {message}"
  files = re.findall(r'File "([^"]+)", line (\d+)', trace)
  files = [file for file in files if "ml_collections" not in file[0]]
  return f"{flag} {' line '.join(files[-1])}: {last}" if files else f"{flag} {last}"


def _bad_value(name, value, said, known_keys):
  """The message for a value that a flag cannot have."""
  for of_python, ours in _PARSERS.items():
    said = ours if said.startswith(of_python) else said
  if name.startswith("config."):
    expected = known_keys().get(name.removeprefix("config."))
    said = said if expected is None else f"expected {expected}"
  return f"flag --{name}={value}: {said}{percent_hint(value)}"


def _unknown_flag(name, known_keys):
  """The message for a flag that there is not."""
  known = [f"--{flag}" for flag in flags.FLAGS]
  if "config" in flags.FLAGS:
    known += [f"--config.{key}" for key in known_keys()]
  return f"Unknown command line flag '{name}'{hint(f'--{name}', known)}"


def _as_given(key, known):
  """The unknown key as the flag spells it, with its section."""
  given = (re.match(r"--?(?:no)?config\.([\w.]+)", argument) for argument in sys.argv)
  paths = [match[1] for match in given if match]
  return next((path for path in paths if path not in known and key in path.split(".")), key)


def _as_typed(said):
  """An error that begins with the name of a key, with the flag that set the key."""
  key = said.split(" ", 1)[0]
  typed = f"--config.{key}" in (argument.partition("=")[0] for argument in sys.argv)
  return f"--config.{said}" if typed else said


def _no_config(given, why):
  """The message for a --config that is neither a file nor the name of a recipe."""
  names = recipes.names()
  meant = hint(given.rpartition("/")[2].removesuffix(".py"), names)
  return (
    f"--config {given}: {why}, and no recipe of that name: choose from {', '.join(names)}, or give "
    f"the path of a file{meant}"
  )


def _choice_meant(text):
  """The hint for a value that is not among a flag's choices."""
  choice = re.search(r"=(\S+): value should be one of <([^>]*)>", text)
  return "" if choice is None else hint(choice[1], choice[2].split("|"))


def _fail(error):
  log(error_line(error))
  sys.exit(2)
