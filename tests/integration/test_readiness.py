"""Whether a container listens is learnt from the kernel's tables, not from its descriptors."""

from __future__ import annotations

from functools import partial

from tests.integration.harness import free_port, wait_until
from tests.integration.probes import ProbeCase

# Its listening socket is in flight to itself (SCM_RIGHTS, unix(7)): no process holds it.
HIDING = """
import array
for _ in range(5000):
    os.open("/dev/null", os.O_RDONLY)
for _ in range(50):
    if not os.fork():
        time.sleep(1000)
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
here, there = socket.socketpair()
passed = array.array("i", [server.fileno()])
here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
server.close()
time.sleep(1000)
"""
LATE = """
time.sleep(1)
server = socket.create_server(("127.0.0.1", {port}))
time.sleep(1000)
"""


class ReadinessTests(ProbeCase):
    """Whether a container listens on its PORT."""

    def is_ready(self, instance: str) -> bool:
        """Whether the manager has seen it listen."""
        return self.ask("GET", f"/instances/{instance}").json["ready"]

    def test_hidden(self) -> None:
        """A socket that no process holds is of the container that has made it."""
        for network in ("host", "none"):
            keys = {"startup_env": f"PORT={free_port()}", "network": network}
            instance = self.start_probe(HIDING, **keys)
            wait_until(partial(self.is_ready, instance), f"it is ready: {network}")

    def test_of_another(self) -> None:
        """A socket of another container on this one's port is not its own."""
        port = free_port()
        self.start_probe(LATE.format(port=port))
        instance = self.launch(**self.job("#!/bin/sh\nsleep 1000\n"), startup_env=f"PORT={port}")
        self.assertFalse(self.is_ready(instance))
