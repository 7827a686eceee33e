"""The one exception that means: the caller can fix this."""


class InputError(ValueError):
  """Bad input from the user: a config value, a path, weights, an image, a checkpoint or a flag.

  Its message says what was given, what was expected and what to do. The command-line tools print it
  as one line, without a traceback, and exit with status 2.
  """


class DivergedError(InputError):
  """Training met losses that are not finite; the message names the step and the last checkpoint."""
