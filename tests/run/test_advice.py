"""Where a checkpoint cannot be written, the advice is of what the system says."""

import errno
import os

import pytest

from asvit_jax.core.errors import InputError
from asvit_jax.run.checkpoints import Checkpoints

ADVICE = {
  errno.EMFILE: "ulimit -n",
  errno.ENFILE: "limit of open files",
  errno.ENOSPC: "make room",
  errno.EIO: "make room or mend the disk",
  errno.ENOENT: "make room or mend the disk",
}


@pytest.mark.parametrize("number", ADVICE)
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_advice_is_of_what_the_system_says(tmp_path, number, wrapped):
  error = OSError(number, os.strerror(number), "d")
  if wrapped:  # as Orbax's storage says it
    error = ValueError(f"cannot write [os_error_code='{number}']")
  with (
    pytest.raises(InputError, match="there is no checkpoint yet: ") as caught,
    Checkpoints(tmp_path)._writing(),
  ):
    raise error
  advice = str(caught.value).partition("there is no checkpoint yet: ")[2]
  assert ADVICE[number] in advice
  assert "run the same command to resume" in advice
