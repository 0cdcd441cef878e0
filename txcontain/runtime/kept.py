"""What is kept of an instance on the disk: its folder, and the record in it.

The folder's mode says how far it has come (phase.py). All is done in the thread that writes, in the
order in which it was asked for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txcontain.errors import MachineAtFault
from txcontain.host.files import to_json, write_soon
from txcontain.host.os_errors import of_os
from txcontain.logs.logd import LOG
from txcontain.runtime.phase import Phase
from txcontain.runtime.records import RECORD

Record = Mapping[str, Any]
log = Logger()


def all_but_what_tells(folder: str) -> list[str]:
    """The paths of what is in an instance's folder, except its record and its log."""
    with contextlib.suppress(FileNotFoundError):  # it has no folder yet
        return [os.path.join(folder, name) for name in set(os.listdir(folder)) - {LOG, RECORD}]
    return []


@define(eq=False)
class Kept:
    """An instance's folder."""

    path: str
    writes: Callable[..., Deferred[Any]]  # runs a function where it may wait

    async def make(self) -> None:
        """Make the folder. Raises MachineAtFault."""
        try:
            await self.writes(os.mkdir, self.path, Phase.HALF_MADE)
        except OSError as error:
            raise MachineAtFault("making the instance's folder", of_os(error)) from error

    def begin(self, record: Record, *, was_prepared: bool) -> Deferred[None]:
        """Write the first record of a start. From now on a prepared folder is an instance's.

        Fails with OSError.
        """
        text = to_json(record)

        def write() -> None:
            if was_prepared:
                os.chmod(self.path, Phase.HALF_MADE)
            write_soon(os.path.join(self.path, RECORD), text)

        return self.writes(write)

    async def be_whole(self) -> None:
        """The next manager goes on with it. Raises MachineAtFault."""
        try:
            await self.writes(os.chmod, self.path, Phase.WHOLE)
        except OSError as error:
            raise MachineAtFault("keeping the instance", of_os(error)) from error

    def be_ending(self) -> Deferred[None]:
        """The next manager removes it; if the disk is broken, it lets the container run on."""
        marked = self.writes(os.chmod, self.path, Phase.ENDING)
        return marked.addErrback(lambda failure: failure.trap(OSError) and None)

    def write(self, record: Record) -> None:
        """Write the record for the next manager, which finds the processes also without it."""

        def failed(failure: Any) -> None:
            failure.trap(OSError)
            name = os.path.basename(self.path)
            log.warn("the state of {name} can't be kept: {why}", name=name, why=failure.value)

        self.writes(write_soon, os.path.join(self.path, RECORD), to_json(record)).addErrback(failed)

    def write_failure(self, record: Record) -> Deferred[None]:
        """Write the record of a launch that failed, also if there is no folder yet.

        Fails with OSError.
        """
        text = to_json(record)

        def write() -> None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path, Phase.HALF_MADE)
            write_soon(os.path.join(self.path, RECORD), text)
            os.chmod(self.path, Phase.WHOLE)

        return self.writes(write)
