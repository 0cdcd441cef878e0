"""The real init, which waits before a chosen step until it is told to go on.

Beside a copy of this file lie ``real`` (a link to the real init), ``step`` (the number of
the step) and two fifos: it writes to ``waits``, and then reads of ``go``.
"""

import os
import sys
from importlib.machinery import SourceFileLoader
from typing import Any

here = os.path.dirname(sys._getframe().f_code.co_filename)  # __file__ is the compiled one
real: Any = SourceFileLoader("real", os.path.join(here, "real")).load_module()
opened: list[Any] = []


def receive_plan(connection: Any, receive: Any = real.receive_plan) -> Any:
    """The plan, with a step that waits before the chosen one, and what came with it."""
    if not opened:  # the init has closed all that it was given; after pivot_root it is too late
        opened.extend(os.open(os.path.join(here, name), os.O_RDWR) for name in ("waits", "go"))
    plan, passed = receive(connection)
    if plan and done[0] <= chosen < done[0] + len(plan):
        plan.insert(chosen - done[0], ("wait", {}))
    done[0] += len(plan or [])
    return plan, passed


def wait(container: Any) -> None:
    """A step that waits."""
    os.write(opened[0], b"!")
    os.read(opened[1], 1)


def close_from(kernel: Any, first: int, close: Any = real.Kernel.close_from) -> None:
    """Close all but what this waits with."""
    close(kernel, max(first, *(each + 1 for each in opened)))


with open(os.path.join(here, "step")) as file:
    chosen = int(file.read())
done = [0]
real.Container.wait = wait
real.Kernel.close_from = close_from
real.receive_plan = receive_plan
real.main(*sys.argv[1:])
