"""What the processes that the manager spawns inherit: nothing but what they are given."""

import os

from twisted.internet import process

LOW = range(10)  # the streams, and all that a process is given


def inherit_nothing() -> None:
    """Have no process inherit a descriptor that is open now, and spare Twisted a look at them.

    Python opens none that would be inherited (PEP 446), and what another process passes is marked
    where it arrives. Twisted looks at all that are open before each spawn nevertheless, to close
    them: with 1,000 containers, the reactor waits some ten milliseconds for that.
    """
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and os.path.exists(f"/proc/self/fd/{name}"):  # else it was the folder's
            os.set_inheritable(int(name), False)
    process.detector._listOpenFDs = lambda: LOW  # type: ignore[method-assign]  # as it does itself
