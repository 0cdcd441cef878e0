"""Packs a folder into a stream of tar(1), and unpacks one, each in a jail of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from secrets import token_hex
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from txcontain.container.plan import Plan, VolumePlace
from txcontain.errors import CalledOff, ConfigAtFault, MachineAtFault
from txcontain.host.os_errors import of_os
from txcontain.images.complaints import Complaints
from txcontain.images.packing_plan import make_moving_plan, make_packing_plan
from txcontain.images.programs import compression_in, find, find_decompressor
from txcontain.images.unpack import Unpacker, check_words
from txcontain.images.unpacking_plan import make_unpacking_plan
from txcontain.later import Timer
from txcontain.runtime import diagnose
from txcontain.runtime.child import Child
from txcontain.runtime.conversation import StepFailed
from txcontain.runtime.exits import Exit
from txcontain.runtime.pipes import Into, OutOf

LEAST, LEAST_WITHIN = 1 << 20, 60.0  # bytes that a client takes, and seconds that it has for them
HUNG_UP = "the client hung up"
SLOW = f"the client took less than {LEAST >> 20} MiB in {LEAST_WITHIN:.0f} seconds"
MAGIC = 8  # bytes by which a compression is known
SOME_DIFFER = 1  # tar's exit status if a file was changed while it was read (tar(1))


class Stream(Protocol):
    """What a client sends, as it comes."""

    def peek(self, length: int) -> Deferred[bytes]:
        """The first bytes, which are delivered too; fewer if there are no more."""

    def deliver(self, consumer: Any) -> Deferred[None]:
        """Hand on everything; fires when it has ended, and fails if the client has hung up."""


@define(eq=False)
class Running:
    """A tar(1) in its jail: what it says, and how it ends."""

    child: Child
    said: Complaints
    ended: Deferred[Exit]


@define(eq=False)
class Pace:
    """Calls ``too_slow`` once a client takes too little."""

    reactor: Any
    too_slow: Callable[[], object]
    _taken: int = 0  # bytes since the timer was set
    _lapses: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._lapses = Timer(self.reactor, self.too_slow)
        self._lapses.after(LEAST_WITHIN)

    def took(self, length: int) -> None:
        """It has taken some bytes."""
        self._taken += length
        if self._taken >= LEAST:
            self._taken = 0
            self._lapses.after(LEAST_WITHIN)

    def end(self) -> bool:
        """It takes no more; returns whether it was never too slow."""
        in_time = self._lapses.is_set
        self._lapses.cancel()
        return in_time


@define(eq=False)
class Packer:
    """Makes streams of folders, and folders of streams."""

    unpacker: Unpacker
    folder: str  # where it works

    async def pack(self, what: str, volume: VolumePlace, consumer: Any, still: bool) -> None:
        """Write a tarball of a volume to a consumer.

        :param still: whether nothing changes the volume meanwhile
        Raises MachineAtFault; CalledOff if the consumer goes away, or takes less than LEAST within
        LEAST_WITHIN: it keeps others waiting.
        """
        unpacker, reactor = self.unpacker, self.unpacker.pool.reactor
        tar = await unpacker.threads(find, "tar")
        async with self._beside(what) as beside:
            path = os.path.join(beside, "pipe")
            scratch = os.path.join(beside, "scratch")
            plan = make_packing_plan(volume, scratch, path, tar, unpacker.host)
            pipe = OutOf(reactor, path)
            try:
                async with self._running(what, plan) as running:
                    pace = Pace(reactor, partial(running.child.kill, SLOW))
                    whole = await pipe.deliver(consumer, pace.took)
                    if not whole:
                        running.child.kill(HUNG_UP)
                    how = await running.ended
                    in_time = pace.end()
            finally:
                pipe.close()
        if not in_time:
            raise CalledOff(what, SLOW)
        if how.failed and (still or how.status != SOME_DIFFER):
            raise MachineAtFault(what, f"tar: {running.said.said or how}")

    async def unpack(self, what: str, stream: Stream, folder: str) -> None:
        """Unpack a tarball, which may be compressed, into an empty folder, and flush it.

        Raises ConfigAtFault if it can't be one; MachineAtFault; CalledOff if the client hangs up.
        """
        unpacker = self.unpacker
        try:
            compression = compression_in(await stream.peek(MAGIC))
        except ConnectionLost as error:
            raise CalledOff(what, HUNG_UP) from error
        tar = await unpacker.threads(find, "tar")
        decompress = await unpacker.threads(find_decompressor, compression)
        hidden, lost = f"/.{token_hex(16)}", list[Failure]()
        async with self._beside(what) as beside:
            path = os.path.join(beside, "pipe")
            where = path, folder, os.path.join(beside, "scratch"), hidden
            pipe = Into(unpacker.pool.reactor, path)
            try:
                plan = make_unpacking_plan(*where, tar, decompress, unpacker.host, piped=True)
                async with self._running(what, plan) as running:

                    def hung_up(failure: Failure) -> None:
                        lost.append(failure)
                        running.child.kill(HUNG_UP)

                    delivered = stream.deliver(pipe)
                    delivered.addCallbacks(lambda _: pipe.loseConnection(), hung_up)
                    how = await unpacker.end_within_bounds(
                        running.child, running.ended, what, folder
                    )
            finally:
                pipe.close()
            if lost:
                raise CalledOff(what, HUNG_UP)
            if how.signal is not None:
                raise MachineAtFault(what, "tar", str(how))
            check_words(what, running.said)
            if how.failed and not running.said.left_out:
                raise ConfigAtFault(what, f"tar: {how}")
            await unpacker.pool.writes(os.rmdir, folder + hidden)
            await unpacker.check_and_flush(what, folder)

    async def move_to_disk(self, what: str, volume: VolumePlace) -> None:
        """Move what is in the folder ``data`` of a volume to its own file system.

        Raises MachineAtFault, also if it does not fit.
        """
        true = await self.unpacker.threads(find, "true")
        async with self._beside(what) as beside:
            plan = make_moving_plan(volume, os.path.join(beside, "scratch"), true)
            async with self._running(what, plan) as running:
                await running.ended
        await self.unpacker.remove(os.path.join(volume.folder, "data"))

    @asynccontextmanager
    async def _beside(self, what: str) -> AsyncIterator[str]:
        """A folder to work in."""
        beside = os.path.join(self.folder, token_hex(8))
        try:
            await self.unpacker.pool.writes(_make_folders, beside)
            yield beside
        except OSError as error:
            raise MachineAtFault(what, of_os(error)) from error
        finally:
            await self.unpacker.remove(beside)

    @asynccontextmanager
    async def _running(self, what: str, plan: Plan) -> AsyncIterator[Running]:
        """A tar that runs; all that it has said is known at the end."""
        child = await self.unpacker.pool.take(plan)
        running = Running(child, Complaints(), Deferred())
        child.on_exit, child.heard = running.ended.callback, running.said.feed
        try:
            await child.carry_out(plan)
            yield running
            await child.silent
        except StepFailed as failure:
            await running.ended
            raise diagnose.of_tool(what, plan, failure) from failure
        except BaseException:
            child.kill("it was given up")
            raise
        finally:
            child.clear()
        running.said.close()


def _make_folders(beside: str) -> None:
    os.makedirs(os.path.join(beside, "scratch"), mode=0o700)
