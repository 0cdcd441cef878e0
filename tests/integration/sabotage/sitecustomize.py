"""Makes a manager that dies, or whose inits wait, at a chosen point, or that merges early.

Python imports this by itself where its folder is on PYTHONPATH: nothing in the manager
knows of it. The environment says what to do:

- ``SABOTAGE_DISK=N``: SIGKILL to the manager in place of the N-th system call by which
  it writes a small file (0: never, but count).
- ``SABOTAGE_STEPS=FILE``: SIGKILL to the manager in place of the N-th step that it begins for
  services, or so many seconds later. The file says both, "N SECONDS", and can be written anew.
- ``SABOTAGE_LOWER=N``: have an overlay take so many layers, so that images with more are merged.
- ``SABOTAGE_INIT=FILE``: run this as the init.
"""

import os
import signal
import time
from threading import Thread
from typing import Any


def die(seconds: float = 0.0) -> None:
    """End this process, as it is after so many seconds."""
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def dying(calls: list[Any], number: int) -> Any:
    """The system call, which ends this process instead when it would be the N-th of all."""

    def counted(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            calls.append(function)
            if len(calls) == number:
                die()
            return function(*arguments)

        return call

    return counted


def dying_as_told(path: str, function: Any) -> Any:
    """The function, which ends this process instead, or a little later, as a file says.

    Once the end has begun, it does nothing more.
    """
    calls: list[str] = []  # with what the file said each time

    def call(*arguments: Any) -> Any:
        with open(path) as file:
            calls.append(file.read())
        number, seconds = calls[-1].split()
        before = int(number) - calls.count(calls[-1])  # that many calls more
        if before == 0:
            Thread(target=die, args=[float(seconds)]).start() if float(seconds) else die()
        return function(*arguments) if before >= 0 or number == "0" else None

    return call


if "SABOTAGE_DISK" in os.environ:
    from txcontain.host import files

    number = int(os.environ["SABOTAGE_DISK"])
    wrap = dying([], number)
    for name in ("write", "flush", "rename", "link", "unlink"):
        object.__setattr__(files.DISK, name, wrap(getattr(files.DISK, name)))

if "SABOTAGE_STEPS" in os.environ:
    from txcontain.services.keeper import Keeper

    keeper: Any = Keeper
    keeper._begin = dying_as_told(os.environ["SABOTAGE_STEPS"], keeper._begin)

if "SABOTAGE_LOWER" in os.environ:
    from txcontain.engine import images

    vars(images)["MOST_LOWER"] = int(os.environ["SABOTAGE_LOWER"])

if "SABOTAGE_INIT" in os.environ:
    from txcontain.runtime import pool

    pool.INIT = os.environ["SABOTAGE_INIT"]
