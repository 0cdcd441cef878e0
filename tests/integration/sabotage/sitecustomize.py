"""Makes a manager that dies, or whose inits wait, at a chosen point.

Python imports this by itself where its folder is on PYTHONPATH: nothing in the manager
knows of it. The environment says what to do:

- ``SABOTAGE_DISK=N``: SIGKILL to the manager in place of the N-th system call by which
  it writes a small file (0: never, but count).
- ``SABOTAGE_INIT=FILE``: run this as the init.
"""

import os
import signal
from typing import Any


def dying(calls: list[Any], number: int) -> Any:
    """The system call, which ends this process instead when it would be the N-th of all."""

    def counted(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            calls.append(function)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return call

    return counted


if "SABOTAGE_DISK" in os.environ:
    from txcontain.host import files

    number = int(os.environ["SABOTAGE_DISK"])
    wrap = dying([], number)
    for name in ("write", "flush", "rename", "link", "unlink"):
        object.__setattr__(files.DISK, name, wrap(getattr(files.DISK, name)))

if "SABOTAGE_INIT" in os.environ:
    from txcontain.runtime import pool

    pool.INIT = os.environ["SABOTAGE_INIT"]
