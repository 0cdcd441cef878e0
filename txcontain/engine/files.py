"""The files of instances: read as a tar stream, written from one, kept as a mountable.

The host's tar(1) does it, in the container's own root (``visit_plan.py``).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from hashlib import sha256
from secrets import token_hex
from typing import Any, NoReturn

from attrs import define, field

from txcontain.container.document import refuse, shown
from txcontain.container.visit_plan import BORROWED, Visit, plan_of_ended, plan_of_running
from txcontain.engine.manager import Manager
from txcontain.engine.transfers import still
from txcontain.errors import CalledOff, CannotCopy, MachineAtFault, MountableExists, NotRunning
from txcontain.host.files import flush_folder
from txcontain.host.os_errors import of_os
from txcontain.images.complaints import Complaints
from txcontain.images.programs import find
from txcontain.runtime.instance import Instance
from txcontain.runtime.session import PASSED_AS_KILL, Session
from txcontain.runtime.sessions import WHY_NOT

LONGEST_PATH = 4096  # bytes (PATH_MAX)
MOUNTABLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,199}\.tar")
# What is left out of the folders that have files of the kernel's, or what was borrowed.
NOT_ITS_OWN = {"/": ("./proc/*", "./sys/*", "./dev/*"), BORROWED: ("*/*",)}
# What is told of a file, and how stat(1) prints that.
STATUS = {"mode": "%f", "owner": "%u", "group": "%g", "size": "%s", "changed": "%Y"}
KINDS = {stat.S_IFDIR: "folder", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
DIFFERS = 1  # tar's exit status if a file has changed while it was read: that is no failure
QUIET = [f"--warning=no-{what}" for what in ("file-changed", "file-removed", "file-ignored")]
CREATE = ["--create", "--file=-", "--sparse", "--numeric-owner", *QUIET]
EXTRACT = ["--extract", "--file=-", "--numeric-owner", "--same-permissions", "--block-number"]
EXTRACT += ["--absolute-names", "--warning=no-timestamp", "--warning=no-unknown-keyword"]
XATTRS = ["--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability"]
NAMED = 3  # complaints to quote
HINTS = {
    "Read-only file system": "it can't be written there: the mount is READ, or it is the image",
    "No space left on device|Disk quota exceeded|Wrote only": (
        "no room is left there: remove something, or raise the limit"
    ),
}


@define
class Transfer:
    """A tar that reads or writes the files of an instance."""

    what: str  # it does, for an error
    session: Session
    held: contextlib.ExitStack  # until its end
    complaints: Complaints = field(factory=Complaints)

    async def run(self, take: Callable[[bytes], object], *, differs: bool = False) -> None:
        """Wait for its end; ``take`` is told what it writes to standard output.

        :param differs: whether files may change meanwhile
        Raises CannotCopy, CalledOff, MachineAtFault.
        """

        def hear(stream: int, data: bytes) -> None:
            (take if stream == 1 else self.complaints.feed)(data)

        self.session.heard = hear
        self.session.resumeProducing()
        with self.held:
            how = await self.session.ended
        self.complaints.close()
        said = self.complaints.said
        if self.session.ended_because:
            raise CalledOff(self.what, self.session.ended_because)
        if how.status == 0 or (differs and how.status == DIFFERS):
            return
        if self.complaints.left_out and not said:
            return
        if how.status is None:
            raise MachineAtFault(self.what, "tar", str(how))
        raise CannotCopy(self.what, *_why(said or str(how)))

    @property
    def producer(self) -> Any:
        """An IPushProducer: what comes out."""
        return self.session

    @property
    def input(self) -> Any:
        """An IConsumer: what goes in."""
        return self.session.transport

    def close_input(self) -> None:
        """All has gone in."""
        self.session.close_input()

    def end(self, because: str) -> None:
        """End it."""
        self.session.end(because)

    @property
    def left_out(self) -> str:
        """A sentence about what could not be made; empty if that is nothing."""
        kinds = [f"{one['count']} {kind}" for kind, one in self.complaints.left_out.items()]
        return f"left out: {', '.join(kinds)}" if kinds else ""


def _why(said: str) -> tuple[str, ...]:
    """What of tar's complaints is the cause, and what to do."""
    complaints = said.split("; ")
    for pattern, hint in HINTS.items():
        if found := next((one for one in complaints if re.search(pattern, one)), None):
            return found, hint
    return ("; ".join(complaints[:NAMED]),)


# -- reading and writing -----------------------------------------------------------


async def read(manager: Manager, instance: Instance, path: str) -> Transfer:
    """Begin to read what is at a path of an instance, as a tar stream.

    It begins with the last part of the path; for a path that ends with ``/.``, with what is in it.

    Raises InvalidData, NoSuchPath, NotRunning, TooMany, MachineAtFault.
    """
    folder, name = split(path)
    patterns = NOT_ITS_OWN.get("/" + os.path.normpath(path).strip("/"), ())
    excluded = [f"--exclude={pattern}" for pattern in patterns]
    arguments = ["--format=gnu", *["--anchored", *excluded] * bool(excluded)]
    what = f"reading {path} in {instance.name}"
    return await _start(manager, instance, what, (folder, name), [*CREATE, *arguments, "--", name])


async def look(manager: Manager, instance: Instance, path: str) -> dict[str, Any]:
    """What is at a path of an instance: the name and kind of a file, and what stat(1) knows of it.

    Raises InvalidData, NoSuchPath, NotRunning, TooMany, CannotCopy, CalledOff, MachineAtFault.
    """
    folder, name = split(path)
    said = bytearray()
    what = f"looking at {path} in {instance.name}"
    arguments = [f"--printf={' '.join(STATUS.values())}", "--", name]
    transfer = await _start(manager, instance, what, (folder, name), arguments, program="stat")
    await transfer.run(said.extend)
    mode, *numbers = said.decode().split()
    status = dict(zip(STATUS, (int(mode, 16), *map(int, numbers)), strict=True))
    kind = KINDS.get(stat.S_IFMT(status["mode"]), "other")
    return {"name": name.rstrip("/"), "kind": kind, **status, "mode": stat.S_IMODE(status["mode"])}


async def write(manager: Manager, instance: Instance, path: str, *, owners: bool) -> Transfer:
    """Begin to write a tar stream, which is its input, into a folder of an instance.

    :param owners: whether files get the owners that the stream says; else the container's root
    Raises InvalidData, NoSuchPath, NotRunning, TooMany, MachineAtFault.
    """
    check_path(path)
    arguments = [*EXTRACT, "--same-owner" if owners else "--no-same-owner"]
    what = f"writing to {path} in {instance.name}"
    return await _start(manager, instance, what, (path, "."), arguments, writing=True)


async def _start(
    manager: Manager,
    instance: Instance,
    what: str,
    where: tuple[str, str],
    arguments: Sequence[str],
    *,
    program: str = "tar",
    writing: bool = False,
    output: str | None = None,
) -> Transfer:
    found = await manager.threads(find, program)
    files = dict.fromkeys(path for path in (found.path, found.loader, *found.libraries) if path)
    command = [*found.command(BORROWED), *arguments]
    most = manager.layers.unpacker.bounds.size if output else None
    visit = Visit(*where, list(files), command, output, most)
    with contextlib.ExitStack() as stack:
        if writing:  # it is not to be started meanwhile
            await instance.moving.acquire()
            stack.callback(instance.moving.release)
        plan = _plan(manager, instance, visit, writing)
        if instance.ended:
            await manager.pool.standby.drop(instance.name)
            await _hold_layers(manager, instance, stack)
        else:
            stack.pop_all().close()
        session = await manager.sessions.start(instance, plan)
        session.ends_by = PASSED_AS_KILL  # it is PID 1, which is deaf to other signals
        return Transfer(what, session, stack.pop_all())


async def _hold_layers(manager: Manager, instance: Instance, stack: contextlib.ExitStack) -> None:
    stack.enter_context(manager.holding(instance.layers))
    if not await manager.threads(manager.layers.are_there, instance.layers):
        raise CannotCopy(
            f"the images of {instance.name} were removed, as it had ended",
            "destroy it, and launch its config again",
        )


def _plan(manager: Manager, instance: Instance, visit: Visit, writing: bool) -> Any:
    mapped = instance.ids is not None
    if instance.state == "failed":
        hint = "launch its config again"
        raise NotRunning(f"{instance.name} has no files: its launch failed", hint)
    if instance.ended:
        plan = instance.plan
        return plan_of_ended(manager.host, plan, visit, mapped=mapped, writing=writing)
    process = instance.processes.process if instance.processes else None
    if not instance.running or process is None or not process.pid:
        why = WHY_NOT.get(instance.state, f"is {instance.state}")
        raise NotRunning(f"{instance.name} {why}", "its files can't be reached now: try again")
    return plan_of_running(manager.host, process.pid, process.start_time, visit, mapped=mapped)


def check_path(path: str) -> None:
    """Raise InvalidData unless this can be a path in a container."""
    if not path.startswith("/") or "\0" in path or len(os.fsencode(path)) > LONGEST_PATH:
        refuse(f"path must be an absolute path of up to {LONGEST_PATH} bytes, not {shown(path)}")


def split(path: str) -> tuple[str, str]:
    """The folder to work in, and what of it is meant: ``.`` is all that is in it.

    Raises InvalidData.
    """
    check_path(path)
    folder, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        return path, "."
    return folder or "/", name + "/" * path.endswith("/")


# -- keeping -----------------------------------------------------------------------


async def commit(
    manager: Manager,
    instance: Instance,
    name: str,
    target: str | None,
    begun: Callable[[Session], object],
    *,
    pause: bool = False,
) -> dict[str, Any]:
    """Keep what an instance has at a writable mount (or in its root, ``/``) as a new mountable.

    :param pause: whether its processes are frozen meanwhile
    :param begun: is told what does it, to end it if nobody waits for it any more
    Raises InvalidData, MountableExists, NotRunning, CannotCopy, CalledOff, MachineAtFault.
    """
    if not MOUNTABLE.fullmatch(name):
        refuse(f"mountable must be a plain name such as data-1.tar, not {shown(name)}")
    target = _target(instance, target)
    path = os.path.join(manager.mountables, name)
    beside = os.path.join(manager.mountables, f".{name}.{token_hex(8)}{_unfinished(manager)}")
    what = f"keeping {target} of {instance.name} as {name}"
    # The unpacking of a tarball leaves out a top folder that is named like it.
    renamed = f"--transform=flags=rSh;s,^\\.,{name.removesuffix('.tar')},"
    arguments = [*CREATE, "--format=posix", *XATTRS, "--one-file-system", renamed, "."]
    manager.committing.add(os.path.basename(beside))
    try:
        await manager.threads(_make, path, beside)
        try:
            async with frozen(manager, instance, pause):
                where = target, "."
                transfer = await _start(manager, instance, what, where, arguments, output=beside)
                begun(transfer.session)
                await transfer.run(bytes, differs=True)
            size: int = await manager.threads(_keep, beside, path)
        finally:
            await manager.threads(_remove, beside)
    except FileExistsError:
        hint = "choose another name, or remove that file"
        raise MountableExists(f"there is a {name} in mountables/ already", hint) from None
    except OSError as error:
        raise MachineAtFault(what, of_os(error)) from error
    finally:
        manager.committing.discard(os.path.basename(beside))
    manager.journal.add("committed", f"{target} was kept as {name}", instance=instance.name)
    return {"mountable": name, "mount": target, "size": size}


@contextlib.asynccontextmanager
async def frozen(manager: Manager, instance: Instance, wanted: bool) -> AsyncIterator[None]:
    """Have its processes frozen for a while, if that is wanted: no longer than this manager is."""
    if not wanted:
        yield
        return
    async with manager.volumes.pausing, still(manager, [instance]):
        yield


def _unfinished(manager: Manager) -> str:
    """The end of the names of what this manager keeps: others may use the same mountables."""
    return f".{sha256(os.path.realpath(manager.state).encode()).hexdigest()[:8]}.tmp"


def remove_unfinished(manager: Manager) -> list[str]:
    """Remove what commits that were cut short have left; returns the names."""
    end, names = _unfinished(manager), list[str]()
    with contextlib.suppress(FileNotFoundError):  # there are no mountables
        names = [name for name in os.listdir(manager.mountables) if name.endswith(end)]
    cut_short = sorted(set(names) - manager.committing)
    for name in cut_short:
        _remove(os.path.join(manager.mountables, name))
    return cut_short


def _target(instance: Instance, target: str | None) -> str:
    """Which of its writable places is meant; if none is named, the only one.

    Raises InvalidData.
    """
    spec = instance.spec
    writable = [mount.target for mount in spec.mounts if mount.writable]
    writable += ["/"] * spec.writable_root
    if not writable:
        refuse(f"{instance.name} has no READWRITE mount and no writable root to keep")
    places = ", ".join(writable)
    if target is None and len(writable) > 1:
        refuse(f"{instance.name} can write to several places", f"say which with mount: {places}")
    if target is not None and target not in writable:
        refuse(f"{instance.name} has no READWRITE mount at {shown(target)}", f"it has {places}")
    if instance.ended and spec.limits.disk is not None:
        _refuse_memory(instance)
    return target or writable[0]


def _refuse_memory(instance: Instance) -> NoReturn:
    refuse(f"what {instance.name} wrote was in memory (limits.disk), and is gone")


def _make(path: str, beside: str) -> None:
    if os.path.lexists(path):
        raise FileExistsError
    os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))


def _keep(beside: str, path: str) -> int:
    """Give the whole file its name, unless another has it; returns its bytes."""
    descriptor = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    os.link(beside, path)
    flush_folder(os.path.dirname(path))
    return size


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
