"""What containers wrote: kept within a bound, read, and followed.

A container's stdout and stderr are the files themselves: no manager copies a byte, so
none is lost when there is no manager. The bound is kept from outside: when a file
holds more than ``log_max_size`` times ``log_max_files``, its oldest ``log_max_size``
bytes are cut off in place (FALLOC_FL_COLLAPSE_RANGE, fallocate(2)), while the
container goes on writing to its end. Where a file system can't do that, the bytes
become a hole, which frees the disk as well.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.inotify import IN_MODIFY, INotify
from twisted.logger import Logger
from twisted.python.filepath import FilePath

from txcontain.instance import Instance
from txcontain.kernel import Kernel
from txcontain.later import Timer, pause
from txcontain.streams import Stream

STREAMS = ("stdout", "stderr")
BLOCK = 65536  # bytes of one read; a multiple of every file system's block
RESERVABLE = 64 << 20  # bytes: some file systems reserve room for a file that grows
CHECK_AFTER, CHECK_AT_MOST = 0.1, 1.0  # seconds between two looks at a log that grows
FOLLOW_EVERY = 0.1  # seconds between two looks of one who follows
LONGEST_LOOK = 4 << 20  # bytes that a look back for lines reads, before others have their turn
MOST_HOLDING = 50  # readers that hold logs open between two looks: a descriptor each stream
Found = TypeVar("Found")


def log_path(instance: Instance, stream: str) -> str:
    """The file that a container's stream goes to."""
    return instance.path(stream)


@define(eq=False)
class Log:
    """The file of one stream of a container, and what was done to it."""

    path: str
    cut: int = 0  # bytes cut off so far
    cutting: Lock = field(factory=Lock)  # held while the file and ``cut`` may not agree
    written_before: int = 0  # bytes ever, at the last look


@define(eq=False)
class Bounds:
    """Keeps the logs of all instances within their bounds."""

    reactor: Any
    kernel: Kernel
    threads: Callable[..., Deferred[Any]]  # runs a function off the reactor's thread, for readers
    readers: int = 0  # those that read logs now
    _logs: dict[str, Log] = field(factory=dict)  # by path
    _watcher: Any = None
    _checks: dict[str, Timer] = field(factory=dict)  # by the instance's name
    _log: Logger = field(factory=Logger)

    def start(self) -> None:
        """Begin to watch."""
        self._watcher = INotify(self.reactor)
        self._watcher.startReading()

    def stop(self) -> None:
        """Watch no more."""
        for check in self._checks.values():
            check.cancel()
        self._checks = {}
        if self._watcher is not None:
            self._watcher.loseConnection()
            self._watcher = None

    def watch(self, instance: Instance) -> None:
        """Keep an instance's logs within their bound, for as long as it runs.

        Until something is written, this costs nothing but a look, at what was written
        before, and a watch (inotify(7)).
        """
        self._checks.pop(instance.name, None)
        if self._watcher is None or instance.ended:
            return

        def written(_: Any, path: FilePath[Any], mask: int) -> None:
            if os.fsdecode(path.basename()) in STREAMS:
                self._written(instance)

        self._watcher.watch(FilePath(instance.folder), IN_MODIFY, callbacks=[written])
        self.check(instance)

    def forget(self, instance: Instance) -> None:
        """The instance has ended: look a last time."""
        if not instance.ending:  # else they go in a moment
            self.check(instance)
        pending = self._checks.pop(instance.name, None)
        if pending is not None:
            pending.cancel()
        if self._watcher is not None:
            self._unwatch(instance)

    def removed(self, instance: Instance) -> None:
        """The instance is no more."""
        for stream in STREAMS:
            self._logs.pop(log_path(instance, stream), None)

    def log(self, instance: Instance, stream: str) -> Log:
        """What is known of a stream's log; whoever reads it keeps it, though it be removed."""
        path = log_path(instance, stream)
        return self._logs.setdefault(path, Log(path))

    def _unwatch(self, instance: Instance) -> None:
        folder = FilePath(instance.folder)
        if self._watcher._isWatched(folder):
            self._watcher.ignore(folder)

    def _written(self, instance: Instance) -> None:
        """Something was written: look now and then instead of being told of every write."""
        if instance.name not in self._checks:
            self._unwatch(instance)
            self._check_after(CHECK_AFTER, instance)

    def _check_after(self, seconds: float, instance: Instance) -> None:
        check = self._checks[instance.name] = Timer(self.reactor, self._check_again)
        check.after(seconds, seconds, instance)

    def _check_again(self, seconds: float, instance: Instance) -> None:
        grown = self.check(instance)
        if grown > instance.spec.log_max_size / 100:
            self._check_after(CHECK_AFTER, instance)
        elif grown or seconds < CHECK_AT_MOST:
            self._check_after(min(2 * seconds, CHECK_AT_MOST), instance)
        else:
            self.watch(instance)

    def check(self, instance: Instance) -> int:
        """Cut what is too long; returns by how many bytes the logs have grown."""
        return sum(self._check_file(instance, self.log(instance, name)) for name in STREAMS)

    def _check_file(self, instance: Instance, log: Log) -> int:
        try:
            descriptor = os.open(log.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            grown = _grown(log, descriptor)
            spec = instance.spec
            most = spec.log_max_size * spec.log_max_files
            excess = os.fstat(descriptor).st_size - _next_data(descriptor, 0) - most
            if excess > 0:
                parts = -(-excess // spec.log_max_size)
                self._cut(log, descriptor, parts * spec.log_max_size)
            status = os.fstat(descriptor)
            hollow = 0 < status.st_size == _next_data(descriptor, 0)
            if hollow or status.st_blocks * 512 > 2 * most + RESERVABLE:
                _cut_all(log, descriptor)
        finally:
            os.close(descriptor)
        return grown

    def _cut(self, log: Log, descriptor: int, length: int) -> None:
        length = -(-length // BLOCK) * BLOCK
        first = _next_data(descriptor, 0) // BLOCK * BLOCK
        length = min(length, (os.fstat(descriptor).st_size - 1) // BLOCK * BLOCK - first)
        with log.cutting:
            if length > 0 and self.kernel.cut_off(descriptor, first, length):
                log.cut += length


def _grown(log: Log, descriptor: int) -> int:
    written = os.fstat(descriptor).st_size + log.cut
    grown = written - log.written_before
    log.written_before = written
    return grown


def _cut_all(log: Log, descriptor: int) -> None:
    """The container has reserved room in its log (fallocate(2)), or made it all hole.

    A cut by the bound never leaves a hole alone: it spares the last bytes.
    """
    with log.cutting:
        log.cut += os.fstat(descriptor).st_size
        os.ftruncate(descriptor, 0)


def _next_data(descriptor: int, offset: int) -> int:
    """The offset of the first byte from there on that is in no hole; the size where all are."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError:  # ENXIO
        return os.fstat(descriptor).st_size


# -- reading ---------------------------------------------------------------------------


@define(eq=False)
class Cursor:
    """A place in a log, which is open until ``close``, and then opened again where it is needed.

    So its end can be read though its folder be removed. All but ``close`` may wait for
    a disk: not for the reactor's thread.
    """

    log: Log
    place: int = 0  # counts every byte that was ever written, so it holds across a cut
    _descriptor: int = -1

    def go_to_end(self, lines: int) -> int:
        """Go to the end; returns for how many newlines to look back, to be before these lines."""
        return self._go(_end, lines) if self._opened() else 0

    def look_back(self, newlines: int) -> int:
        """Go back to the line after so many newlines, or as far as one look goes.

        Returns for how many to look on.
        """
        return self._go(_look_back, newlines) if self._opened() else 0

    def read(self) -> bytes:
        """A block from the place on, which is behind it then; empty where there is none yet."""
        return self._go(_read) if self._opened() else b""

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _opened(self) -> bool:
        """Whether there is a file already."""
        if self._descriptor < 0:
            with contextlib.suppress(FileNotFoundError):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                self._descriptor = os.open(self.log.path, flags)
        return self._descriptor >= 0

    def _go(self, look: Callable[..., tuple[int, Found]], *arguments: int) -> Found:
        """Go where a look at the file leads, and return what it finds.

        It begins at an offset, and returns one: so it is done again where the file was
        cut meanwhile.
        """
        while True:
            cut = self.log.cut
            offset, found = look(self._descriptor, max(self.place - cut, 0), *arguments)
            with self.log.cutting:
                if self.log.cut == cut:
                    self.place = cut + offset
                    return found


def _end(descriptor: int, _: int, lines: int) -> tuple[int, int]:
    """See ``Cursor.go_to_end``."""
    size = os.fstat(descriptor).st_size
    if not (size and lines):
        return size, 0
    return size, lines + (os.pread(descriptor, 1, size - 1) == b"\n")


def _look_back(descriptor: int, end: int, newlines: int) -> tuple[int, int]:
    """See ``Cursor.look_back``. What is in a hole is not read: it may be terabytes."""
    end = min(end, os.fstat(descriptor).st_size)
    for _ in range(LONGEST_LOOK // BLOCK):
        end = _end_of_data(descriptor, end)
        if not end:
            return 0, 0
        begin = (end - 1) // BLOCK * BLOCK
        block = os.pread(descriptor, end - begin, begin)
        found = block.count(b"\n")
        if found >= newlines:
            return begin + _after_newline(block, newlines), 0
        end, newlines = begin, newlines - found
    return end, newlines


def _end_of_data(descriptor: int, before: int) -> int:
    """Where the last data before an offset ends, if not to the byte; 0 where there is none.

    The kernel finds only what follows an offset: what precedes one takes a bisection.
    """

    def is_behind(block: int) -> bool:
        return _next_data(descriptor, block * BLOCK) >= before

    return min(before, BLOCK * bisect_left(range(-(-before // BLOCK)), True, key=is_behind))


def _after_newline(block: bytes, number: int) -> int:
    """The position after a newline, which is counted from the end."""
    position = len(block)
    for _ in range(number):
        position = block.rindex(b"\n", 0, position)
    return position + 1


def _read(descriptor: int, offset: int) -> tuple[int, bytes]:
    """See ``Cursor.read``."""
    if offset > os.fstat(descriptor).st_size:  # the container has shortened it
        offset = 0
    offset = _next_data(descriptor, offset)
    block = os.pread(descriptor, BLOCK, offset)
    return offset + len(block), block


@define(eq=False)
class Reader(Stream):
    """Sends an instance's logs to a consumer, as fast as it takes them."""

    reactor: Any = field(kw_only=True)
    bounds: Bounds = field(kw_only=True)
    instance: Instance = field(kw_only=True)
    streams: tuple[str, ...] = field(kw_only=True)

    async def send(self, lines: int | None, follow: bool) -> None:
        """Send the last ``lines`` lines of each stream (all, where None), and what follows."""
        cursors = [Cursor(self.bounds.log(self.instance, stream)) for stream in self.streams]
        self.bounds.readers += 1
        self.begin()
        try:
            for cursor in cursors:
                await self._go_back(cursor, lines)
            await self._send(cursors, follow)
        finally:
            self.finish()
            self.bounds.readers -= 1
            for cursor in cursors:
                cursor.close()

    async def _go_back(self, cursor: Cursor, lines: int | None) -> None:
        run = self.bounds.threads
        newlines = 0 if lines is None else await run(cursor.go_to_end, lines)
        while newlines and await self.free():
            newlines = await run(cursor.look_back, newlines)

    async def _send(self, cursors: list[Cursor], follow: bool) -> None:
        while await self.free():
            ended = self.instance.ended
            sent = [await self._send_block(cursor) for cursor in cursors]
            if any(sent):
                continue
            if ended or not follow:
                break
            await pause(self.reactor, FOLLOW_EVERY)

    async def _send_block(self, cursor: Cursor) -> bool:
        block = await self.bounds.threads(cursor.read)
        if self.bounds.readers > MOST_HOLDING:
            cursor.close()
        if block and await self.free():
            self.consumer.write(block)
        return bool(block)
