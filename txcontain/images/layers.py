"""Tarballs, each unpacked once into a layer that all instances share and none writes to.

A layer is unpacked beside its place and renamed in, so half a one is never seen. It
is named after the tarball's identity (inode, size, times of change): replace the
tarball, and the next launch unpacks the new one.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from itertools import accumulate
from secrets import token_hex
from typing import Any

from attrs import asdict, define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txcontain.container.facts import NOWHERE, Host
from txcontain.errors import ConfigAtFault, Error, MachineAtFault
from txcontain.host.files import to_json, write
from txcontain.host.syscalls import flush_disk
from txcontain.images.bounds import DEFAULTS, MOST, Bounds, check
from txcontain.images.complaints import Complaints
from txcontain.images.content import Content, look, read, top
from txcontain.images.programs import Program, compression_of, find
from txcontain.images.unpack import make_unpacking_plan
from txcontain.later import background
from txcontain.runtime import diagnose
from txcontain.runtime.child import Child
from txcontain.runtime.conversation import StepFailed
from txcontain.runtime.exits import Exit
from txcontain.runtime.pool import Pool

UNPACKING = ".unpacking"  # how the name of a layer ends until it is one
LOOK_EVERY = 3.0  # seconds between two looks at what tar has unpacked so far
RECORD, LONGEST_RECORD = ".json", 1 << 20  # what is known of a layer: how its file ends, bytes
# What tar says of a full disk (it does not always say why it could not write).
FULL = re.compile("No space left on device|Disk quota exceeded|Wrote only")
HIDDEN = 1  # folder that is in a layer for tar's sake, as long as tar runs
TRIES = 3  # of unpacking a tarball that changes meanwhile


class _HasChanged(Exception):
    """A tarball is not any more what was being unpacked."""


@define(eq=False)
class Layers:
    """The layers below ``folder``; ``threads`` runs a function off the reactor's thread."""

    folder: str
    pool: Pool
    threads: Callable[..., Deferred[Any]]
    remove: Callable[[str], Awaitable[None]]  # removes a file tree, off the reactor's thread
    bounds: Bounds = DEFAULTS
    host: Host = NOWHERE
    keep: int = MOST  # bytes of layers that no instance uses
    _unpacking: dict[str, list[Deferred[str]]] = field(factory=dict)
    _contents: dict[str, Content] = field(factory=dict)  # of layers, by their paths
    _asked: dict[str, float] = field(factory=dict)  # by the same, when they were asked for last
    _superseded: set[str] = field(factory=set)  # that go as soon as no instance uses them
    _grown: bool = True  # whether there are layers that were not there at the last look
    _news: dict[str, str] = field(factory=dict)  # by the same, what no one has been told yet
    _log: Logger = field(factory=Logger)

    async def get_base(self, folder: str, name: str) -> str:
        """The same as ``get`` for what is to be a root.

        Raises ConfigAtFault, also where it is none.
        """
        layer = await self.get(folder, name)
        archive = self.content(layer).archive
        if archive:
            raise ConfigAtFault(
                f"{name} is {archive}: it holds layers, and no root",
                "have Docker make a tarball "
                f"of the root: docker export $(docker create IMAGE) > {name}",
            )
        return layer

    async def get(self, folder: str, name: str) -> str:
        """The path of the layer of the tarball ``name`` in ``folder``; unpacked where new.

        Raises ConfigAtFault where there is no such tarball or it is none,
        MachineAtFault where it can't be unpacked here.
        """
        tarball = os.path.join(folder, name)
        for _ in range(TRIES):
            layer = os.path.join(self.folder, _identity(tarball))
            self._asked[layer] = self.pool.reactor.seconds()
            if os.path.isdir(layer):
                return layer
            with contextlib.suppress(_HasChanged):
                return await self._unpacked_once(tarball, layer)
        raise ConfigAtFault(f"{name} changes while it is unpacked", "launch again when it is whole")

    def _unpacked_once(self, tarball: str, layer: str) -> Deferred[str]:
        waiting: Deferred[str] = Deferred()
        if layer in self._unpacking:
            self._unpacking[layer].append(waiting)
        else:
            self._unpacking[layer] = [waiting]
            background(self._unpack_for_all(tarball, layer), f"unpacking {tarball}")
        return waiting

    async def _unpack_for_all(self, tarball: str, layer: str) -> None:
        try:
            outcome: Any = await self._unpack(tarball, layer)
        except Exception:
            outcome = Failure()
        for waiting in self._unpacking.pop(layer):
            waiting.callback(outcome)  # a Failure here makes it fail

    async def _unpack(self, tarball: str, layer: str) -> str:
        name = os.path.basename(tarball)
        beside = f"{layer}-{token_hex(8)}{UNPACKING}"
        unpacked = os.path.join(beside, "layer")
        self._log.info("unpacking {tarball}", tarball=tarball)
        try:
            await self.pool.writes(_make_folders, beside)
            hidden = f"/.{token_hex(16)}"
            complaints = await self._run_tar(tarball, beside, hidden)
            if await self.threads(_identity, tarball) != os.path.basename(layer):
                raise _HasChanged
            _check_words(f"unpacking {name}", complaints)
            await self.pool.writes(os.rmdir, unpacked + hidden)
            size = await self._check_and_flush(name, unpacked)
            found = {"tarball": tarball, "size": size, "left_out": complaints.left_out}
            content = await self.threads(_settle, unpacked, layer, found)
        except OSError as error:
            raise MachineAtFault(f"unpacking {name}", str(error)) from error
        finally:
            await self.remove(beside)
        self._contents[layer] = content
        self._grown = True
        if content.told:
            self._news[layer] = content.told
        return layer

    async def _check_and_flush(self, name: str, unpacked: str) -> int:
        """Both at once; unflushed, a power cut could leave empty files that are taken for whole.

        Returns how many bytes it takes.
        """
        flushed = self.threads(flush_disk, unpacked)
        try:
            size: int = await self.threads(check, name, unpacked, self.bounds)
        finally:
            await flushed
        return size

    def content(self, layer: str) -> Content:
        """What is known of a layer."""
        if layer not in self._contents:
            try:
                with open(layer + RECORD, "rb") as file:
                    self._contents[layer] = read(file.read(LONGEST_RECORD))
            except OSError:
                return Content()
        return self._contents[layer]

    def news(self, layers: Sequence[str]) -> list[str]:
        """What a person should know of these layers, a sentence each, and has not been told yet."""
        return [self._news.pop(layer) for layer in dict.fromkeys(layers) if layer in self._news]

    async def remove_unused(self, used: Callable[[], set[str]]) -> list[str]:
        """Remove what no instance uses: all but the newest layer of each tarball, and what an
        unpacking that was cut short has left. Of the newest, those stay that were asked for last,
        up to ``keep`` bytes.

        Returns the names of what was removed; ``used`` tells the layers that are in use.
        """
        found = await self.threads(self._found)
        in_use = used() | set(self._unpacking)
        self._superseded = {path for path in in_use if not found.get(path, (0, True))[1]}
        unused = {path: facts for path, facts in found.items() if path not in in_use}
        removed = []
        for path in superfluous(unused, self._asked, self.keep):
            if path in used() | set(self._unpacking):  # since then
                continue
            aside = path if path.endswith(UNPACKING) else f"{path}-{token_hex(8)}{UNPACKING}"
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, aside)  # from now on no launch finds it
                os.unlink(path + RECORD)
            self._contents.pop(path, None)
            await self.remove(aside)
            removed.append(os.path.basename(path))
        return removed

    def is_to_tidy(self) -> bool:
        """Whether there may be something to remove by now."""
        grown, self._grown = self._grown, False
        return grown or bool(self._superseded) or self.keep < MOST

    def _found(self) -> dict[str, tuple[int, bool]]:
        """What is in the folder, but for what is being unpacked: bytes, and whether it is the
        newest layer of its tarball.
        """
        paths = [entry.path for entry in os.scandir(self.folder) if entry.is_dir()]
        mine = tuple(f"{path}-" for path in self._unpacking)
        return {
            path: (self.content(path).size, self._is_newest(path))
            for path in paths
            if not path.startswith(mine or " ")
        }

    def _is_newest(self, layer: str) -> bool:
        """Whether its tarball is still what it was; it is, while its folder can't be seen."""
        tarball = self.content(layer).tarball
        try:
            return _identity(tarball) == os.path.basename(layer)
        except ConfigAtFault:
            return bool(tarball) and not os.path.isdir(os.path.dirname(tarball))

    def cut_short(self) -> list[str]:
        """The paths of what an earlier manager began to unpack."""
        names = os.listdir(self.folder)
        return [os.path.join(self.folder, name) for name in names if name.endswith(UNPACKING)]

    async def _run_tar(self, tarball: str, beside: str, hidden: str) -> Complaints:
        """Have tar unpack it; returns all that it has said.

        Raises ConfigAtFault, MachineAtFault.
        """
        what = f"unpacking {os.path.basename(tarball)}"
        folder, scratch = os.path.join(beside, "layer"), os.path.join(beside, "scratch")
        tar, decompress = await self.threads(_programs_for, tarball)
        paths = tarball, folder, scratch, hidden
        plan = make_unpacking_plan(*paths, tar, decompress, self.host)
        child = await self.pool.take(plan)
        complaints, ended = Complaints(), Deferred[Exit]()
        child.on_exit, child.heard = ended.callback, complaints.feed
        try:
            await child.carry_out(plan)
            how = await self._end_within_bounds(child, ended, os.path.basename(tarball), folder)
            await child.silent
        except StepFailed as failure:
            await ended
            raise diagnose.of_tool(what, failure) from failure
        except ConfigAtFault:
            raise
        except Error as error:
            raise MachineAtFault(what, *error.chain) from error
        finally:
            child.clear()
        complaints.close()
        if how.signal is not None:
            raise MachineAtFault(what, "tar", str(how))
        if how.failed and not complaints.said and not complaints.left_out:
            raise ConfigAtFault(what, f"tar: {how}")
        return complaints

    async def _end_within_bounds(
        self, child: Child, ended: Deferred[Exit], what: str, folder: str
    ) -> Exit:
        """Wait for the end; hasten it where more is unpacked than the bounds allow.

        Raises ConfigAtFault then.
        """
        beyond: list[Failure] = []

        def end(failure: Failure) -> None:
            beyond.append(failure)
            child.kill()

        watch = LoopingCall(self.threads, check, what, folder, self.bounds, HIDDEN)
        watch.clock = self.pool.reactor
        watch.start(LOOK_EVERY, now=False).addErrback(end)
        how = await ended
        if watch.running:
            watch.stop()
        for failure in beyond:
            failure.raiseException()
        return how


def _make_folders(beside: str) -> None:
    for folder in ("layer", "scratch"):
        os.makedirs(os.path.join(beside, folder), mode=0o755)


def last_words(path: str, most: int) -> str:
    """The last lines of a file, of up to ``most`` bytes; nothing where there is none."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            text = file.read(most).decode(errors="replace")
    except OSError:
        return ""
    lines = text.splitlines()
    return "\n".join(lines[1:] if size > most else lines).strip()


def superfluous(
    unused: Mapping[str, tuple[int, bool]], asked: Mapping[str, float], keep: int
) -> list[str]:
    """The layers to remove of those that are not used, each with its bytes, and whether it is the
    newest of its tarball: all that are not, and then those asked for the longest time ago.
    """
    newest = [path for path, (_, is_newest) in unused.items() if is_newest]
    newest.sort(key=lambda path: asked.get(path, 0.0), reverse=True)
    sizes = accumulate(unused[path][0] for path in newest)
    kept = {path for path, size in zip(newest, sizes, strict=True) if size <= keep}
    return [path for path in unused if path not in kept]


def _programs_for(tarball: str) -> tuple[Program, Program | None]:
    """The host's tar, and what it decompresses this file with."""
    compression = compression_of(tarball)
    return find("tar"), find(compression) if compression else None


def _check_words(what: str, complaints: Complaints) -> None:
    """Raise the error that there is in what tar has said."""
    if FULL.search(complaints.said):
        hint = "free some space and launch again"
        raise MachineAtFault(what, "tar", "the disk is full", hint)
    if complaints.said:
        raise ConfigAtFault(what, complaints.said, "is it a whole tarball?")


def _identity(tarball: str) -> str:
    what = os.path.basename(tarball)
    try:
        status = os.lstat(tarball)
        if stat.S_ISLNK(status.st_mode):
            status = os.stat(tarball)
    except FileNotFoundError:
        folder = os.path.basename(os.path.dirname(tarball))
        raise ConfigAtFault(
            f"there is no {what} in {folder}/", "put it there, or correct the config"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise ConfigAtFault(f"{what} is not a file")
    times = status.st_mtime_ns, status.st_ctime_ns
    facts = (what, status.st_dev, status.st_ino, status.st_size, *times)
    return sha256(repr(facts).encode()).hexdigest()[:32]


def _settle(unpacked: str, layer: str, found: dict[str, Any]) -> Content:
    """Find where the content begins, keep what is known of it, and move it into place.

    Raises ConfigAtFault, OSError.
    """
    begin = top(found["tarball"], unpacked)
    content = Content(**found, **look(begin))
    write(layer + RECORD, to_json(asdict(content)))
    os.rename(begin, layer)
    return content
