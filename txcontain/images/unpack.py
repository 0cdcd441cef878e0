"""Unpacks a tarball into a layer: runs tar(1) in its jail, and judges what it did."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from secrets import token_hex
from typing import Any

from attrs import asdict, define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txcontain.container.facts import NOWHERE, Host
from txcontain.container.plan import Plan
from txcontain.errors import ConfigAtFault, Error, MachineAtFault
from txcontain.host.files import to_json, write
from txcontain.host.syscalls import flush_disk
from txcontain.images.bounds import USUAL, Bounds, Taken, check
from txcontain.images.complaints import Complaints
from txcontain.images.metadata import RECORD, Metadata, look, top
from txcontain.images.programs import Program, compression_of, find, find_decompressor
from txcontain.images.unpacking_plan import make_merging_plan, make_unpacking_plan
from txcontain.images.whiteouts import convert
from txcontain.runtime import diagnose
from txcontain.runtime.child import Child
from txcontain.runtime.conversation import StepFailed
from txcontain.runtime.exits import Exit
from txcontain.runtime.pool import Pool

UNPACKING = ".unpacking"  # the suffix of a folder that is not a layer yet, or no longer
CHECK_EVERY = 3.0  # seconds between two checks of what tar has unpacked so far
# What tar says if the disk is full. (It does not always say why it could not write.)
FULL = re.compile("No space left on device|Disk quota exceeded|Wrote only")
IS_WHOLE = "is it a whole tarball?"
PARTS = "layer", "scratch"  # folders, while a layer is made
HIDDEN = 1  # folder that is in the layer while tar runs, and not from the tarball


class HasChanged(Exception):
    """The tarball was changed while it was unpacked."""


@define
class Progress:
    """How far an unpacking is."""

    tarball: str  # path
    begun: float  # by the reactor's clock
    size: int = 0  # bytes so far, when it was last checked


@define(eq=False)
class Unpacker:
    """Unpacks tarballs, each in a process of the pool."""

    pool: Pool
    threads: Callable[..., Deferred[Any]]  # runs a function off the reactor's thread
    remove: Callable[[str], Awaitable[None]]  # removes a file tree, off the reactor's thread
    bounds: Bounds = USUAL
    host: Host = NOWHERE
    under_way: dict[str, Progress] = field(factory=dict)  # by the folder it is unpacked to
    _log: Logger = field(factory=Logger)

    async def unpack(self, tarball: str, layer: str, of_image: str = "") -> Metadata:
        """Make a layer of a tarball. It is unpacked beside its place and then renamed.

        :param of_image: the digest of the tarball if it is a layer of an image: it has whiteouts,
            and nobody changes it. It is not flushed to the disk
        Raises ConfigAtFault, HasChanged, MachineAtFault.
        """
        name = f"the layer {of_image}" if of_image else os.path.basename(tarball)
        hidden = f"/.{token_hex(16)}"
        async with self._beside(name, tarball, layer) as beside:
            unpacked, scratch = (os.path.join(beside, part) for part in PARTS)
            tar, decompress = await self.threads(programs_for, tarball)
            paths = tarball, unpacked, scratch, hidden
            plan = make_unpacking_plan(*paths, tar, decompress, self.host)
            complaints = await self._run_tar(name, plan, unpacked)
            if not of_image and await self.threads(identity_of, tarball) != os.path.basename(layer):
                raise HasChanged
            # Some builders' layers have no end mark. That a layer is whole, its digest shows.
            check_words(f"unpacking {name}", complaints, needs_end=not of_image)
            await self.pool.writes(os.rmdir, unpacked + hidden)
            if of_image:
                taken = await self.threads(check, name, unpacked, self.bounds)
                await self.threads(convert, name, unpacked)  # after a check that refuses devices
            else:
                taken = await self.check_and_flush(name, unpacked)
            begin = unpacked if of_image else await self.threads(top, tarball, unpacked)
            left_out = complaints.left_out
            known = {"tarball": of_image or tarball, **asdict(taken), "left_out": left_out}
            metadata: Metadata = await self.threads(_settle, beside, begin, layer, known)
        return metadata

    async def merge(self, layers: Sequence[str], layer: str, known: dict[str, Any]) -> Metadata:
        """Make a layer of what an overlay of others, the highest first, shows.

        :param known: what is known of it
        It is not flushed to the disk. Raises ConfigAtFault, MachineAtFault.
        """
        name, hidden = f"the merge of {len(layers)} layers", f"/.{token_hex(16)}"
        async with self._beside(name, known["tarball"], layer) as beside:
            merged, scratch = (os.path.join(beside, part) for part in PARTS)
            tar, sh = await self.threads(find, "tar"), await self.threads(find, "sh")
            plan = make_merging_plan(layers, merged, scratch, hidden, tar, sh, self.host)
            complaints = await self._run_tar(name, plan, merged)
            check_words(f"unpacking {name}", complaints)
            await self.pool.writes(os.rmdir, merged + hidden)
            taken = await self.threads(check, name, merged, self.bounds)
            facts = {**known, **asdict(taken)}
            metadata: Metadata = await self.threads(_settle, beside, merged, layer, facts)
        return metadata

    @asynccontextmanager
    async def _beside(self, name: str, tarball: str, layer: str) -> AsyncIterator[str]:
        """A folder beside the place of a layer, to make it in. Raises MachineAtFault."""
        beside = f"{layer}-{token_hex(8)}{UNPACKING}"
        made = os.path.join(beside, PARTS[0])
        self._log.info("unpacking {tarball}", tarball=tarball)
        self.under_way[made] = Progress(tarball, self.pool.reactor.seconds())
        try:
            await self.pool.writes(_make_folders, beside)
            yield beside
        except OSError as error:
            raise MachineAtFault(f"unpacking {name}", str(error)) from error
        finally:
            del self.under_way[made]
            await self.remove(beside)

    async def _run_tar(self, name: str, plan: Plan, folder: str) -> Complaints:
        """Have tar fill a folder; returns all that tar has said.

        Raises ConfigAtFault, MachineAtFault.
        """
        what = f"unpacking {name}"
        child = await self.pool.take(plan)
        complaints, ended = Complaints(), Deferred[Exit]()
        child.on_exit, child.heard = ended.callback, complaints.feed
        try:
            await child.carry_out(plan)
            how = await self.end_within_bounds(child, ended, name, folder)
            await child.silent
        except StepFailed as failure:
            await ended
            raise diagnose.of_tool(what, plan, failure) from failure
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

    async def end_within_bounds(
        self, child: Child, ended: Deferred[Exit], what: str, folder: str
    ) -> Exit:
        """Wait for the end of tar; kill it if it has unpacked more than the bounds allow.

        Raises ConfigAtFault then.
        """
        beyond: list[Failure] = []

        def end(failure: Failure) -> None:
            beyond.append(failure)
            child.kill("it was more than is allowed")

        def take_note(taken: Taken) -> None:
            if progress := self.under_way.get(folder):  # there is none of an import
                progress.size = taken.size

        def look() -> Deferred[Any]:
            taken = self.threads(check, what, folder, self.bounds, HIDDEN)
            return taken.addCallback(take_note)

        watch = LoopingCall(look)
        watch.clock = self.pool.reactor
        watch.start(CHECK_EVERY, now=False).addErrback(end)
        how = await ended
        if watch.running:
            watch.stop()
        for failure in beyond:
            failure.raiseException()
        return how

    async def check_and_flush(self, name: str, unpacked: str) -> Taken:
        """Check what was unpacked, and flush it to the disk meanwhile; returns what it takes.

        Without the flush, a power cut could leave empty files in a layer that looks whole.
        """
        flushed = self.threads(flush_disk, unpacked)
        try:
            taken: Taken = await self.threads(check, name, unpacked, self.bounds)
        finally:
            await flushed
        return taken


def _make_folders(beside: str) -> None:
    for folder in PARTS:
        os.makedirs(os.path.join(beside, folder), mode=0o755)


def identity_of(tarball: str) -> str:
    """What a tarball's layer is called: another name as soon as the tarball is changed.

    Raises ConfigAtFault if there is no such file.
    """
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


def programs_for(tarball: str) -> tuple[Program, Program | None]:
    """The host's tar, and the program that decompresses this file."""
    return find("tar"), find_decompressor(compression_of(tarball))


def check_words(what: str, complaints: Complaints, *, needs_end: bool = True) -> None:
    """Raise an error if tar has complained.

    :param needs_end: whether only its end mark shows that the tarball is whole
    """
    if FULL.search(complaints.said):
        hint = "free some space and launch again"
        raise MachineAtFault(what, "tar", "the disk is full", hint)
    if complaints.said:
        why = "not all of it could be unpacked", f"tar says: {complaints.said}"
        raise ConfigAtFault(what, *why, IS_WHOLE)
    if complaints.lacks_end and needs_end:
        raise ConfigAtFault(what, "it ends without the end mark: it was cut short", IS_WHOLE)


def _settle(beside: str, begin: str, layer: str, known: dict[str, Any]) -> Metadata:
    """Write down what is known of what was unpacked, and move its content into place.

    Raises ConfigAtFault, OSError.
    """
    begun = os.stat(beside).st_mtime  # by the clock of the files
    metadata = Metadata(**{"begun": begun, **known}, **look(begin))
    write(layer + RECORD, to_json(asdict(metadata)))
    os.rename(begin, layer)
    return metadata
