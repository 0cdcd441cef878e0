"""Who is measured: txcontain, the other container programs, and the floor below all.

Each begins a container and finishes when the command in it runs; later the container
is ended. What is inside is always the same: a shell that becomes ``sleep 1000``.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from itertools import count, cycle
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, ClassVar

from bench import packages, processes
from bench.client import Connection, UnixConnection, ask_until
from bench.manager import BASES, ROOT, Manager

INSIDE = ["/bin/sh", "-c", "echo; exec sleep 1000"]
FLOOR = "unshare + chroot"
SECONDS = 20  # after which a container that does not start or end is given up
UNIFIED = "/sys/fs/cgroup/unified"  # where a host with both versions of cgroups mounts version 2
OWN = "txcontain-bench"  # how what is ours is called in places that others use too


class Missing(Exception):
    """A contestant can't take part; why."""


class Contestant:
    """Makes and ends containers; each method is timed on its own."""

    name: str
    what: str  # is measured, in words

    def get_ready(self, many: int) -> None:
        """Prepare for as many at the same time."""

    def begin(self) -> Any:
        """Ask for a container."""
        raise NotImplementedError

    def finish(self, begun: Any) -> Any:
        """Wait until the command in it runs; returns the container."""
        return begun

    def end(self, container: Any) -> None:
        """End a container, and wait until it is gone."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave nothing behind."""


class Txcontain(Contestant):
    """A manager of txcontain, asked for the bench's config with these changes."""

    what = "POST /launch → answer; DELETE /destroy → answer"

    def __init__(self, manager: Manager, name: str, **changes: Any) -> None:
        self.manager, self.name = manager, name
        self.configs = cycle([manager.upload(**changes)])
        self.idle: list[Connection] = [manager.client]

    def get_ready(self, many: int) -> None:
        """Open connections; those of before may have been closed while they were idle."""
        self.idle = [Connection(self.manager.port) for _ in range(many)]
        for connection in self.idle:
            connection.connect()

    def begin(self) -> Connection:
        """Send the request."""
        connection = self.idle.pop()
        connection.send_off("POST", "/launch", next(self.configs))
        return connection

    def finish(self, begun: Connection) -> str:
        """Wait for the answer; returns the instance's name."""
        name: str = begun.answer()["instance"]
        self.idle.append(begun)
        return name

    def end(self, container: str) -> None:
        """Destroy it."""
        self.manager.destroy(container)


class Mixed(Txcontain):
    """One that is never asked for what it was asked for last."""

    what = "the same, of two configs with an image each, in turns"

    def __init__(self, manager: Manager, name: str) -> None:
        super().__init__(manager, name)
        self.configs = cycle([manager.upload(name=one, base_image=one) for one in BASES])


class Foreground(Contestant):
    """A program that stays as its container's parent, and whose end ends it."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name, self.command, self.environment = name, command, environment
        self.what = "call → first line of the script; SIGKILL → gone"

    def begin(self) -> Popen[bytes]:
        """Start the program."""
        return processes.start([*self.command, *INSIDE], stdout=PIPE, env=self.environment)

    def finish(self, begun: Popen[bytes]) -> Popen[bytes]:
        """Wait for the first line from inside."""
        if read_within(begun, SECONDS) != b"\n":
            raise Missing(why_it_fails([*self.command, "/bin/true"], self.environment))
        return begun

    def end(self, container: Popen[bytes]) -> None:
        """Kill the program; the last process inside closes the pipe."""
        container.kill()
        container.wait()
        read_within(container, SECONDS)


class Oci(Contestant):
    """A runtime of the Open Container Initiative: runc, and what is like it."""

    def __init__(self, program: str, root: Path, folder: Path) -> None:
        self.name = program
        self.what = "run --detach → returned; delete --force → returned. A read-only root"
        self.command = [needed(program), "--root", str(folder / f"{program}-state")]
        self.bundle, self.environment = folder / f"{program}-bundle", packages.environment()
        self.numbers = count()
        self.bundle.mkdir()
        self._make_config(root)

    def _make_config(self, root: Path) -> None:
        subprocess.run([self.command[0], "spec"], cwd=self.bundle, env=self.environment, check=True)
        path = self.bundle / "config.json"
        config = json.loads(path.read_text())
        config["root"]["path"] = str(root)
        config["process"].update(terminal=False, args=INSIDE)
        namespaces = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [one for one in namespaces if one["type"] != "network"]
        path.write_text(json.dumps(config))

    def begin(self) -> tuple[str, Popen[bytes]]:
        """Start the runtime."""
        name = f"{OWN}-{next(self.numbers)}"
        run = [*self.command, "run", "--detach", f"--bundle={self.bundle}", name]
        return name, processes.start(run, env=self.environment, stderr=PIPE)

    def finish(self, begun: tuple[str, Popen[bytes]]) -> str:
        """Wait for its return."""
        name, runtime = begun
        if runtime.wait():
            assert runtime.stderr is not None
            raise Missing(runtime.stderr.read().decode(errors="replace").strip()[-200:])
        return name

    def end(self, container: str) -> None:
        """Delete it."""
        delete = [*self.command, "delete", "--force", container]
        processes.start(delete, env=self.environment).wait()


class Crun(Oci):
    """crun where it sees cgroups of one version: it refuses a host that has both mounted."""

    def __init__(self, root: Path, folder: Path) -> None:
        super().__init__("crun", root, folder)
        self.holder: Popen[bytes] | None = None
        if os.path.ismount(UNIFIED):
            self.what += ", both through nsenter"
            self.holder = self._hide_version_2()
            self.command = ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", *self.command]

    def _hide_version_2(self) -> Popen[bytes]:
        hide = f"umount {UNIFIED} && echo && exec sleep infinity"
        holder = processes.start(["unshare", "--mount", "sh", "-c", hide], stdout=PIPE)
        if read_within(holder, SECONDS) != b"\n":
            raise Missing(f"{UNIFIED} can't be unmounted in a mount namespace of its own")
        return holder

    def close(self) -> None:
        """End what holds the mount namespace."""
        if self.holder:
            processes.stop(self.holder)


class Docker(Contestant):
    """A Docker engine of the bench's own, through its API."""

    name = "docker"
    what = "create, start → answered; DELETE ?force=1 → answered. The host's network"
    options: ClassVar = [
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--ip-masq=false",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        f"--cgroup-parent=/{OWN}",
        "--log-level=error",
    ]

    def __init__(self, root: Path, folder: Path) -> None:
        self.host: dict[str, Any] = {"NetworkMode": "host"}
        self.folder = folder / "docker"
        self.folder.mkdir()
        # The path of a socket is short by nature, and those below this one are long.
        self.socket = f"/run/{OWN}-{os.getpid()}.sock"
        self.environment = packages.environment()
        program = needed("dockerd")
        with open(self.folder / "log", "wb") as log:
            self.process = processes.start(
                [
                    program,
                    f"--data-root={self.folder}/data",
                    f"--exec-root={self.folder}/exec",
                    f"--pidfile={self.folder}/pid",
                    f"--host=unix://{self.socket}",
                    *self.options,
                ],
                env=self.environment,
                stderr=log,
            )
        self.client = UnixConnection(self.socket)
        try:
            ask_until(self.client, "/version", lambda answer: True, self.process)
            self._import(root)
        except BaseException:
            self.close()
            raise

    def _import(self, root: Path) -> None:
        with open(self.folder / "image.tar", "w+b") as image:
            pack = ["tar", "--create", f"--directory={root}", "."]
            subprocess.run(pack, stdout=image, check=True)
            image.seek(0)
            path = f"/images/create?fromSrc=-&repo={OWN}"
            self.client.send_bytes("POST", path, image.read())
            self.client.answer_bytes()

    def begin(self) -> str:
        """Create it, and send the request to start it."""
        document = {"Image": OWN, "Cmd": INSIDE, "HostConfig": self.host}
        name: str = self.client.ask("POST", "/containers/create", document)["Id"]
        self.client.send_off("POST", f"/containers/{name}/start")
        return name

    def finish(self, begun: str) -> str:
        """Wait for the answer."""
        self.client.answer()
        return begun

    def end(self, container: str) -> None:
        """Delete it."""
        self.client.ask("DELETE", f"/containers/{container}?force=1")

    def exec(self, container: str, command: list[str]) -> None:
        """Run a command in one, and wait for its end, which is that of the output."""
        document = {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
        created = self.client.ask("POST", f"/containers/{container}/exec", document)["Id"]
        stream = UnixConnection(self.socket)
        stream.send_off("POST", f"/exec/{created}/start", {"Detach": False, "Tty": False})
        stream.read_to_the_end()
        stream.close()

    def with_volume(self, name: str) -> Docker:
        """The same engine, whose containers all have one named volume at /data."""
        other = copy(self)
        other.name, other.host = name, {**self.host, "Binds": [f"{OWN}:/data"]}
        return other

    def daemons(self) -> list[int]:
        """The pids of dockerd and of its containerd."""
        return [self.process.pid, *processes.children(self.process.pid)]

    def close(self) -> None:
        """End it, and unmount and remove what it leaves."""
        processes.stop(self.process)
        below = str(self.folder)
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if line.split()[1].startswith(below):
                subprocess.run(["umount", line.split()[1]], check=False)
        Path(self.socket).unlink(missing_ok=True)
        remove_groups(OWN)


class Again(Contestant):
    """One container that is stopped and started, over and over."""

    what = "POST start → answer; POST stop → answer"

    def __init__(self, name: str, client: Connection, start: str, stop: str) -> None:
        self.name, self.client, self.start, self.stop = name, client, start, stop
        self.end(None)

    def begin(self) -> None:
        """Send the request."""
        self.client.send_off("POST", self.start)

    def finish(self, begun: None) -> None:
        """Wait for the answer."""
        self.client.answer()

    def end(self, container: None) -> None:
        """Stop it."""
        self.client.ask("POST", self.stop)


class Nspawn(Foreground):
    """systemd-nspawn: what it has started outlives it, and it leaves a folder in /run."""

    def end(self, container: Popen[bytes]) -> None:
        """Kill PID 1 of the container; the program ends with it."""
        for pid in processes.children(container.pid):
            os.kill(pid, signal.SIGKILL)
        container.wait()
        read_within(container, SECONDS)

    def close(self) -> None:
        """Remove the folder."""
        with suppress(OSError):
            os.rmdir(f"/run/systemd/nspawn/propagate/{OWN}")


def read_within(process: Popen[bytes], seconds: float) -> bytes:
    """What a process writes to its pipe next; nothing where it is closed.

    Raises Missing where that does not come in time.
    """
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], seconds)[0]:
        raise Missing(f"nothing happened within {seconds} s")
    text = os.read(process.stdout.fileno(), 1)
    if not text:
        process.stdout.close()
    return text


def needed(program: str) -> str:
    """The path of a program.

    Raises Missing.
    """
    path = packages.find(program)
    if path is None:
        raise Missing(f"{program} is not there, and apt-get could not fetch it")
    return path


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder on this disk; in the end it is removed, and whatever still runs is ended."""
    (ROOT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "build"))
    # ext4 is to place what is below in groups of inodes of their own. Without a journal it skips,
    # one by one, those that were freed in the last minutes: what one removes slows the others.
    subprocess.run(["chattr", "+T", folder], stderr=subprocess.DEVNULL)
    try:
        yield folder
    finally:
        processes.end_descendants()
        for slot in folder.glob("*/run/slots/*"):
            remove_groups(f"txcontain/{slot.name}")
        shutil.rmtree(folder, ignore_errors=True)


def why_it_fails(command: list[str], environment: dict[str, str]) -> str:
    """What a command complains of."""
    done = subprocess.run(command, env=environment, capture_output=True, timeout=20)
    complaint = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
    return complaint[-200:]


def remove_groups(name: str) -> None:
    """Remove the cgroups of this name, wherever the hierarchies are mounted."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    for _, path, kind, *_ in mounts:
        if re.fullmatch("cgroup2?", kind):
            for folder, _, _ in os.walk(f"{path}/{name}", topdown=False):
                with suppress(OSError):
                    os.rmdir(folder)


def unpack_root(tarball: Path, folder: Path) -> Path:
    """Unpack the base image; returns where its root is."""
    folder.mkdir()
    command = ["tar", "--extract", f"--file={tarball}", f"--directory={folder}", "--numeric-owner"]
    subprocess.run(command, check=True)
    inner = folder / tarball.name.split(".")[0]
    return inner if inner.is_dir() else folder


def floor(root: Path) -> list[Contestant]:
    """What every container costs at least."""
    unshare = [
        "unshare",
        "--pid",
        "--mount",
        "--uts",
        "--ipc",
        "--cgroup",
        "--fork",
        "--kill-child",
        "chroot",
        str(root),
    ]
    return [
        Foreground(FLOOR, unshare, dict(os.environ)),
        Foreground("no container", [], dict(os.environ)),
    ]


@contextmanager
def peers(root: Path, folder: Path) -> Iterator[tuple[list[Contestant], dict[str, str]]]:
    """The other programs that work here, and why those that don't do not."""
    bwrap = [
        "--bind",
        str(root),
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup",
        "--die-with-parent",
        "--clearenv",
        "--setenv",
        "PATH",
        "/usr/bin:/bin",
    ]
    nspawn = [
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--as-pid2",
        "--console=pipe",
        f"--machine={OWN}",
        f"--directory={root}",
    ]
    variables = packages.environment()
    makers = {
        "docker": lambda: Docker(root, folder),
        "runc": lambda: Oci("runc", root, folder),
        "crun": lambda: Crun(root, folder),
        "bubblewrap": lambda: Foreground("bubblewrap", [needed("bwrap"), *bwrap], variables),
        "nspawn": lambda: Nspawn("nspawn", [needed("systemd-nspawn"), *nspawn], variables),
    }
    working: list[Contestant] = []
    absent: dict[str, str] = {}
    try:
        for name, make in makers.items():
            try:
                working.append(make())
                working[-1].end(working[-1].finish(working[-1].begin()))
            except Exception as error:
                absent[name] = " ".join(str(error).split()) or repr(error)
        yield [one for one in working if one.name not in absent], absent
    finally:
        for one in working:
            one.close()
        shutil.rmtree(folder / "docker", ignore_errors=True)
