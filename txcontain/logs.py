"""What containers wrote: kept within a bound, read, and followed.

A container's stdout and stderr are the files themselves: no manager copies a byte, so
none is lost when there is no manager. The bound is kept from outside: when a file
holds more than ``log_max_size`` times ``log_max_files``, its oldest ``log_max_size``
bytes are cut off in place (FALLOC_FL_COLLAPSE_RANGE, fallocate(2)), while the
container goes on writing to its end. Where a file system can't do that, the bytes
become a hole, which frees the disk as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.inotify import IN_MODIFY, INotify
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.filepath import FilePath

from txcontain.instance import Instance
from txcontain.kernel import Kernel
from txcontain.streams import Stream

STREAMS = ("stdout", "stderr")
BLOCK = 65536  # bytes of one read; a multiple of every file system's block
RESERVABLE = 64 << 20  # bytes: some file systems reserve room for a file that grows
CHECK_AFTER, CHECK_AT_MOST = 0.1, 1.0  # seconds between two looks at a log that grows
FOLLOW_EVERY = 0.1  # seconds between two looks of one who follows


def log_path(instance: Instance, stream: str) -> str:
    """The file that a container's stream goes to."""
    return instance.path(stream)


@define(eq=False)
class Bounds:
    """Keeps the logs of all instances within their bounds."""

    reactor: Any
    kernel: Kernel
    cut: dict[str, int] = field(factory=dict)  # bytes cut off so far, by path
    _written_before: dict[str, int] = field(factory=dict)  # bytes ever, at the last look, by path
    _watcher: Any = None
    _checks: dict[str, Any] = field(factory=dict)  # delayed calls, by the instance's name
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

        Until something is written, this costs nothing but a watch (inotify(7)).
        """
        self._checks.pop(instance.name, None)
        if self._watcher is None or instance.ended:
            return

        def written(_: Any, path: FilePath[Any], mask: int) -> None:
            if os.fsdecode(path.basename()) in STREAMS:
                self._written(instance)

        self._watcher.watch(FilePath(instance.folder), IN_MODIFY, callbacks=[written])

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
            path = log_path(instance, stream)
            self.cut.pop(path, None)
            self._written_before.pop(path, None)

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
        self._checks[instance.name] = self.reactor.callLater(
            seconds, self._check_again, seconds, instance
        )

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
        return sum(self._check_file(instance, log_path(instance, name)) for name in STREAMS)

    def _check_file(self, instance: Instance, path: str) -> int:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            grown = self._grown(path, descriptor)
            spec = instance.spec
            most = spec.log_max_size * spec.log_max_files
            excess = os.fstat(descriptor).st_size - _first_data(descriptor) - most
            if excess > 0:
                parts = -(-excess // spec.log_max_size)
                self._cut(path, descriptor, parts * spec.log_max_size)
            status = os.fstat(descriptor)
            hollow = 0 < status.st_size == _first_data(descriptor)
            if hollow or status.st_blocks * 512 > 2 * most + RESERVABLE:
                self._cut_all(path, descriptor)
        finally:
            os.close(descriptor)
        return grown

    def _grown(self, path: str, descriptor: int) -> int:
        written = os.fstat(descriptor).st_size + self.cut.get(path, 0)
        grown = written - self._written_before.get(path, 0)
        self._written_before[path] = written
        return grown

    def _cut(self, path: str, descriptor: int, length: int) -> None:
        length = -(-length // BLOCK) * BLOCK
        first = _first_data(descriptor) // BLOCK * BLOCK
        length = min(length, (os.fstat(descriptor).st_size - 1) // BLOCK * BLOCK - first)
        if length > 0 and self.kernel.cut_off(descriptor, first, length):
            self.cut[path] = self.cut.get(path, 0) + length

    def _cut_all(self, path: str, descriptor: int) -> None:
        """The container has reserved room in its log (fallocate(2)), or made it all hole.

        A cut by the bound never leaves a hole alone: it spares the last bytes.
        """
        self.cut[path] = self.cut.get(path, 0) + os.fstat(descriptor).st_size
        os.ftruncate(descriptor, 0)

    # -- reading -----------------------------------------------------------------

    def begin(self, path: str, lines: int | None) -> int:
        """Where the last ``lines`` of a log begin (all, where None), as a place for ``read``."""
        try:
            with open(path, "rb") as file:
                start = 0 if lines is None else last_lines(file, lines)
        except FileNotFoundError:
            start = 0
        return start + self.cut.get(path, 0)

    def read(self, path: str, place: int) -> tuple[bytes, int]:
        """A block of a log from a place on, and the place after it. Not for the reactor's thread.

        A place counts every byte that was ever written, so it holds across a cut.
        """
        while True:
            cut = self.cut.get(path, 0)
            try:
                with open(path, "rb", buffering=0) as file:
                    start = max(place - cut, 0)
                    try:
                        start = os.lseek(file.fileno(), start, os.SEEK_DATA)
                    except OSError:  # ENXIO: there is nothing after it
                        return b"", place
                    file.seek(start)
                    block = file.read(BLOCK)
            except FileNotFoundError:
                return b"", place
            if self.cut.get(path, 0) == cut:  # else it was cut while it was read
                return block, start + cut + len(block)


def _first_data(descriptor: int) -> int:
    """The offset of the first byte of a file that is in no hole; its size where all are."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError:  # ENXIO
        return os.fstat(descriptor).st_size


def last_lines(file: Any, lines: int) -> int:
    """The offset at which the last ``lines`` lines of a file begin."""
    offset: int = file.seek(0, os.SEEK_END)
    wanted = lines + 1  # the newline that ends the line before them
    if not (offset and lines):
        return offset
    file.seek(offset - 1)
    wanted -= file.read(1) != b"\n"
    while offset and wanted > 0:
        size = min(BLOCK, offset)
        offset = file.seek(offset - size)
        block = file.read(size)
        found = block.count(b"\n")
        if found >= wanted:
            position = len(block)
            for _ in range(wanted):
                position = block.rindex(b"\n", 0, position)
            return offset + position + 1
        wanted -= found
    return 0


@define(eq=False)
class Reader(Stream):
    """Sends an instance's logs to a consumer, as fast as it takes them."""

    reactor: Any = field(kw_only=True)
    bounds: Bounds = field(kw_only=True)
    threads: Callable[..., Deferred[Any]] = field(kw_only=True)
    instance: Instance = field(kw_only=True)
    streams: tuple[str, ...] = field(kw_only=True)

    async def send(self, lines: int | None, follow: bool) -> None:
        """Send the last ``lines`` lines of each stream (all, where None), and what follows."""
        self.begin()
        try:
            await self._send(lines, follow)
        finally:
            self.finish()

    async def _send(self, lines: int | None, follow: bool) -> None:
        paths = [log_path(self.instance, stream) for stream in self.streams]
        places = {path: await self.threads(self.bounds.begin, path, lines) for path in paths}
        while await self.free():
            ended = self.instance.ended
            sent = [await self._send_block(path, places) for path in paths]
            if any(sent):
                continue
            if ended or not follow:
                break
            await deferLater(self.reactor, FOLLOW_EVERY)

    async def _send_block(self, path: str, places: dict[str, int]) -> bool:
        block, places[path] = await self.threads(self.bounds.read, path, places[path])
        if block and await self.free():
            self.consumer.write(block)
        return bool(block)
