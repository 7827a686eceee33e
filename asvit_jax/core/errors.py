"""The exceptions for errors that the user can fix."""


class InputError(ValueError):
  """Bad input from the user: a config value, a path, weights, an image, a checkpoint or a flag.

  Its message says what was given, what was expected and what to do. The command-line tools print it
  as one line, without a traceback, and exit with status 2.
  """


class DivergedError(InputError):
  """Training reached a non-finite loss; the message names the step and the last checkpoint."""
