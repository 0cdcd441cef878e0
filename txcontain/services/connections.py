"""A container for each connection to a service's ports, in the way of inetd(8).

The program gets one end of a pair of unix sockets, and what it says there is handed on. It does not
get the connection itself: that is a socket of the host's network, and whoever has it could connect
it anew, to anything that the host reaches (connect(2), AF_UNSPEC), and would pass for the manager.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from functools import partial

from attrs import define, evolve
from twisted.internet.defer import TimeoutError

from txcontain.container.launch_request import LaunchRequest
from txcontain.container.spec import Spec
from txcontain.engine.manager import Manager
from txcontain.errors import NoSuchInstance
from txcontain.network.relay import Relay, Relays
from txcontain.runtime.instance import Instance

MOST = 64  # containers of one service at the same time; others wait
LEAVE_WITHIN = 10.0  # seconds in which a program is to end, once its connection is over


@define(eq=False)
class Connections:
    """Those of all services that have an instance for each."""

    manager: Manager
    # What is launched for a connection to a service, by the names of its stack and itself; None if
    # that has no instance for each.
    request: Callable[[str, str], LaunchRequest | None]

    def serve(self, full: str, stack: str, service: str) -> None:
        """Take care of connections to a service, or don't any more."""
        carried = self.manager.network.doorways.carried
        if self.request(stack, service) is None:
            carried.pop(full, None)
        elif full not in carried:
            relays = Relays(self.manager.reactor, MOST)
            carried[full] = partial(self._carry, stack, service, relays), relays

    def drop(self, full: str) -> None:
        """A service is no more; connections that are served go on, to their ends."""
        self.manager.network.doorways.carried.pop(full, None)

    async def _carry(
        self, stack: str, service: str, relays: Relays, connection: socket.socket
    ) -> None:
        """Have a new container serve a connection, to its end and that of the container.

        Raises what a launch raises.
        """
        asked = self.request(stack, service)
        if asked is None:
            return
        try:
            asked = _for_client(asked, connection)
        except OSError:  # it has hung up already
            return
        ours, theirs = socket.socketpair()
        # Already now: the program may speak before all that is to be kept of it is written.
        relay = Relay(self.manager.reactor, (connection, ours))
        with theirs:
            try:
                launch = self.manager.launch_as_asked(evolve(asked, stream=theirs.fileno()))
                instance = await launch
            except Exception:
                relay.cut()
                raise
        relays.keep(relay)
        ended = instance.end()
        ended.addCallbacks(lambda _: relay.end(), lambda _: None)
        await relay.over
        ended.cancel()
        await self._see_it_end(instance)

    async def _see_it_end(self, instance: Instance) -> None:
        """Remove it when it has ended, at the latest in a while: nobody asks for it any more."""
        with contextlib.suppress(TimeoutError):
            await instance.end().addTimeout(LEAVE_WITHIN, self.manager.reactor)
        with contextlib.suppress(NoSuchInstance):
            await self.manager.destroy(instance.name)


def _for_client(asked: LaunchRequest, connection: socket.socket) -> LaunchRequest:
    """The same launch; its program sees who is at the other end, as with systemd.socket(5).

    Raises OSError if no one is.
    """
    assert isinstance(asked.config, Spec)
    host, port = connection.getpeername()
    variables = ("REMOTE_ADDR", (host,)), ("REMOTE_PORT", (str(port),))
    config = evolve(asked.config, startup_env=(*asked.config.startup_env, *variables))
    return evolve(asked, config=config)
