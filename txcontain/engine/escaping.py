"""Escapes, tried for real: from a container without one of its walls, and from one that has it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

from twisted.internet.defer import Deferred

from txcontain.container.escapes import OF_WALL, Escape, plan_of_escape
from txcontain.container.spec import Spec
from txcontain.engine.stepping import Steps
from txcontain.errors import ConfigAtFault, Forbidden
from txcontain.host.syscalls import shared_memory

WITHIN = 10.0  # seconds, for each
WHAT = "trying an escape"


async def attempt(steps: Steps, file_name: str, wall: str, gone: Deferred[None]) -> dict[str, Any]:
    """Try the escape that a wall stops, in a container of a kept config, without the wall and with.

    :param gone: fires when nobody wants to know any more
    Raises Forbidden, NoSuchConfig, TooMany, ConfigAtFault, MachineAtFault.
    """
    escape, manager = OF_WALL[wall], steps.manager
    if not manager.allow_unsafe:
        hint = "start a manager of its own for that, with --allow-unsafe"
        raise Forbidden("this manager makes no container without one of its walls", hint)
    spec = steps.config(file_name)
    if not escape.stands(spec):
        raise ConfigAtFault(f"this wall is not there: {wall}", f"have in the config {escape.key}")
    with steps.turn():
        async with _baits(steps) as bait:
            said = f"{file_name} is made without its wall, to try an escape: {wall}"
            manager.journal.add("unsafe", said, config=file_name)
            tried = partial(_try, steps, spec, escape, bait, gone)
            return {"without": await tried(held=False), "with": await tried(held=True)}


async def _try(
    steps: Steps,
    spec: Spec,
    escape: Escape,
    bait: Mapping[str, str],
    gone: Deferred[None],
    *,
    held: bool,
) -> dict[str, Any]:
    draw = partial(plan_of_escape, spec=spec, escape=escape, bait=bait, held=held)
    made = spec if held else escape.without(spec)
    async with steps.made(made, draw, "" if held else escape.shared) as stepped:
        gone.addCallback(lambda _: stepped.end("its client has gone"))
        said = await stepped.run(WITHIN)
        how = stepped.child.exit
    escaped = how is not None and how.status == 0
    ended = str(how or f"it has not ended within {WITHIN:.0f} s")
    return {"escaped": escaped, "ended": ended, "said": said}


@asynccontextmanager
async def _baits(steps: Steps) -> AsyncIterator[dict[str, str]]:
    """What is on the host for those who get out, as variables that tell where it is."""
    word, manager = token_hex(16), steps.manager
    async with manager.arrivals.working(WHAT) as folder:
        file = Path(folder) / "bait"
        await manager.threads(file.write_text, f"{word}\n")
        with _abstract_socket(word), shared_memory() as memory:
            yield {
                "WORD": word,
                "FILE": str(file),
                "MEMORY": str(memory),
                "MANAGER": str(os.getpid()),
                "HOST": os.uname().nodename,
            }


@contextmanager
def _abstract_socket(name: str) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        yield
