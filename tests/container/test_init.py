"""PID 1, with a recorder in place of the kernel, and with real files."""

from __future__ import annotations

import contextlib
import errno
import json
import marshal
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import make_folder
from tests.support import make_spec, needs_root
from txcontain.container import init, small_files, spec
from txcontain.container.exec_plan import Command, Joined, Size, make_exec_plan
from txcontain.container.facts import Host
from txcontain.container.plan import Link, Link6, Paths, VolumePlace, make_plan
from txcontain.container.visit_plan import Visit, plan_of_ended, plan_of_running
from txcontain.errors import InvalidData
from txcontain.images.packing_plan import make_moving_plan, make_packing_plan
from txcontain.images.programs import Program
from txcontain.images.unpacking_plan import make_merging_plan, make_unpacking_plan

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
short:x:1
bin:x:2:2::/bin:/x:too:long
big:x:4294967296:1::/:
huge:x:1{zeros}:1::/:
1000:x:0:0::/root:/bin/sh
group:x:9:99999999999::/:
minus:x:-1:1::/:
nul:x:50:50::/a\0b:
split:x:1:1:\u2028evil:x:0:0::/:
www:x:33:35:\x85:/srv:/bin/sh
homeless:x:40:40:::
""".format(zeros="0" * 5000)
GROUP = """\
root:x:0:
adm:x:4:syslog,www,4711
www:x:35:www
others:x:36:www-data,xwww,wwww
twice:x:35:www
huge:x:99999999999:www
nonsense
"""
FILES = {"/etc/passwd": PASSWD, "/etc/group": GROUP}
EIO, ENOENT, EEXIST, EINVAL = errno.EIO, errno.ENOENT, errno.EEXIST, errno.EINVAL
OPENING = (
    "open",
    "open_beneath",
    "open_inside",
    "open_terminal",
    "open_other_end",
    "loop",
    "make_user_namespace",
    "copy_mounts",
    "receive_descriptor",
)


class Executed(BaseException):
    """The process is another one now: a real execve(2) that works does not return."""


class Recorder:
    """In place of init.Kernel: remembers each call, and lets some fail."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.failures: list[Any] = []
        self.places: dict[Any, Any] = {}  # of the descriptors that are open, by their numbers

    def fail(self, which: int | tuple[Any, ...], number: int) -> Recorder:
        """Make a call, named by its number or by itself, fail with an errno."""
        self.failures.append((which, number))
        return self

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not callable(getattr(init.Kernel, name)):
            raise AttributeError(name)

        def record(*arguments: Any, **options: int) -> Any:
            call = (name, *arguments, *options.values())
            here = (call, len(self.calls))
            self.calls.append(call)
            for which, number in self.failures:
                if which in here:
                    error: Any = OSError(number, os.strerror(number))
                    error.call = name
                    raise error
            self.follow(name, *arguments)
            return self.result(name, *arguments)

        return record

    def follow(self, name: str, *arguments: Any) -> None:
        """Take note of what is open."""
        number = 1000 + len(self.calls)
        if name in OPENING:
            texts = [*[each for each in arguments if isinstance(each, str)], name]
            self.places[number] = texts[0]
        elif name == "close":
            self.places.pop(arguments[0], None)
        elif name == "close_from":
            self.places.clear()

    def result(self, name: str, *arguments: Any) -> Any:
        """What a call returns: the number of a descriptor tells which call opened it."""
        if name == "execve":
            raise Executed
        if name == "fork":
            return 0
        if name == "readlink":
            return "../x/"
        if name == "read":
            return b"secret"
        if name == "stat":
            kind = stat.S_IFREG if isinstance(arguments[0], int) else stat.S_IFDIR
            return SimpleNamespace(st_uid=33, st_gid=34, st_mode=kind | 0o750)
        if name == "place":
            return self.places[arguments[1]]
        return 1000 + len(self.calls)


def make_container(kernel: Any, manager: Any = None) -> init.Container:
    """A container on doubles."""
    return init.Container(kernel, manager)


class Manager:
    """In place of the socket to the manager, which answers at once."""

    def __init__(self) -> None:
        self.received: Any = b""
        self.answers = {"link": b"\n", "step": b"."}  # to what the init wants

    def sendall(self, message: bytes) -> None:
        self.received += message

    def close(self) -> None:
        self.received = None

    def fileno(self) -> int:
        return 3

    def sendmsg(self, parts: list[bytes], passed: list[Any]) -> None:
        self.received += b"".join(parts)

    def recv(self, length: int, flags: int) -> bytes:
        *_, said = self.received.splitlines() or [b"{}"]
        return self.answers.get(json.loads(said).get("wants"), b"")[:length]


class Case(SynchronousTestCase):
    """Replaces the files of the image, and has a folder."""

    maxDiff = None

    def setUp(self) -> None:
        self.files = dict(FILES)
        self.patch(init, "read_file", self.read_file)

    def read_file(self, path: str, root: int) -> str:
        if path not in self.files:
            raise FileNotFoundError(ENOENT, "not there", path)
        return self.files[path]

    def carry_out(self, plan: list[Any], kernel: Recorder) -> tuple[Any, ...]:
        """Carry out a plan; returns what was said, and the seconds of each step."""
        said: list[Any] = []
        durations: list[float] = []
        clock = iter(range(10_000)).__next__
        container = make_container(kernel, Manager())
        with contextlib.suppress(Executed):
            self.assertFalse(init.carry_out(plan, container, said.append, durations, clock))
        return said, durations

    def calls(self, op: str, kernel: Recorder | None = None, **arguments: Any) -> list[Any]:
        """The calls that one step makes in a new root."""
        kernel = kernel or Recorder()
        with contextlib.suppress(Executed):
            getattr(make_container(kernel), op)(**arguments)
        return kernel.calls

    def overlay(self, kernel: Recorder | None = None, **changes: Any) -> list[Any]:
        """The calls of an overlay whose arguments are changed in these."""
        layers = {"lower": ["/l"], "upper": "/u", "work": "/w", "volatile": False}
        plain = {"target": "/t", "flags": [], "sealed": False, **layers}
        return self.calls("overlay", kernel, **{**plain, **changes})


SMALL = VolumePlace("/volumes/small", "2.json", 1 << 24)


def container_plan(ids: int | None = None, **changes: Any) -> list[tuple[Any, ...]]:
    """A plan with every op that a container's plan can have."""
    masked = (("/proc/kcore", False), ("/sys/firmware", True))
    host = Host("/empty", masked, ("/proc/sys",), (b"x", b"y"))
    link = Link("10.0.0.2", "255.255.0.0", "10.0.0.1", Link6("fd00::2", 64, "fd00::1"))
    paths = Paths("/base", ["/web", "/home"], "/private", "/scratch", host, link, ids)
    volumes = {"pg": VolumePlace("/volumes/pg", "1.json"), "small": SMALL}
    paths = evolve(paths, volumes=volumes, host_folders=["/srv"])
    changes = {
        "mounts": ["web.tar /web READ", "home.tar /web/home READWRITE"],
        "volumes": ["pg /pg", "small /small", "/srv/www /www READ"],
        "startup_script": "/web/run.sh",
        "workdir": "/web",
        "files": [{"path": "/etc/app.conf", "content": "x", "owner": "www"}],
        "secrets": ["db /run/db 0400 www:others"],
        "startup_owner": "www",
        "limits": {"files": 100, "disk": "1M"},
        "shm_size": "1M",
        "network": "private",
        **changes,
    }
    return make_plan(make_spec(**changes), paths, "web-1")


def exec_plan(**changes: Any) -> list[tuple[Any, ...]]:
    """A plan of a command, with every op that it can have."""
    container = make_spec(network="private", limits={"files": 100})
    joined = Joined(4711, 99, ["/cgroup/procs"], user_namespace=True)
    command = Command(("/bin/sh", "-i"), "www", (), "/srv", Size())
    return make_exec_plan(container, Host(seccomp=(b"x", b"y")), joined, command)


VISIT = Visit("/etc", "hosts", ["/bin/tar", "/lib/libc.so"], ["/proc/bin/tar"], "/out.tar")
HOST = Host(seccomp=(b"x", b"y"))


def visit_plan() -> list[tuple[Any, ...]]:
    """A plan that reads the files of a container that has ended."""
    own = container_plan(ids=1 << 20, writable_root=True, limits={})
    return plan_of_ended(HOST, own, VISIT, mapped=True, writing=False)


PLANS = {
    "visit": plan_of_running(HOST, 4711, 99, VISIT, mapped=True),
    "visit of an ended one": visit_plan(),
    "exec": exec_plan(),
    "container": container_plan(),
    "as root": container_plan(startup_owner="root"),
    "looked after": container_plan(init=True),
    "for a connection": container_plan(per_connection=True),
    "user namespace": container_plan(ids=1 << 20),
    "disk": container_plan(limits={}, disk_size="16M"),
    "in steps": [one for each in container_plan() for one in (("pause", {}), each)],
    "packing": make_packing_plan(SMALL, "/scratch", "/pipe", Program("/tar")),
    "moving": make_moving_plan(SMALL, "/scratch", Program("/true")),
    "unpacking": make_unpacking_plan("/base.tar", "/layer", "/scratch", "/.x", Program("/tar")),
    "merging": make_merging_plan(
        ["/upper", "/lower"], "/layer", "/scratch", "/.x", Program("/tar"), Program("/sh")
    ),
}


class DiskTests(Case):
    """A file system in a file."""

    def setUp(self) -> None:
        self.image = os.path.join(make_folder(self), "disk.img")

    def make(self, program: str) -> None:
        """Make it, by this program."""
        self.patch(init, "MKE2FS", ("/none", program))
        init.Kernel().make_disk(self.image, 1 << 20)

    def test_made(self) -> None:
        """It is made once, with all its bytes; half of one is never taken for a whole one."""
        Path(f"{self.image}.new").write_text("half")
        self.assertRaises(OSError, self.make, "/bin/false")
        self.assertFalse(os.path.exists(self.image))
        self.make("/bin/true")
        status = os.stat(self.image)
        self.assertEqual((status.st_size, status.st_blocks * 512 >= 1 << 20), (1 << 20, True))
        self.make("/bin/false")

    def test_locked(self) -> None:
        """While anything has it, it is not shown again: that would destroy it."""
        self.make("/bin/true")
        self.patch(init, "FREE_WITHIN", 0.0)
        self.patch(init.Kernel, "_show", lambda _, file: os.dup(file))
        device = init.Kernel().loop(self.image)
        self.assertRaises(BlockingIOError, init.Kernel().loop, self.image)
        os.close(device)
        os.close(init.Kernel().loop(self.image))

    @needs_root
    def test_shared(self) -> None:
        """Whoever shares it gets the device that shows it, whoever has it; and waits to make it."""
        self.make("/bin/true")
        self.patch(init.Kernel, "_shown", lambda _, file: os.dup(file))
        device = init.Kernel().loop(self.image)
        os.close(init.Kernel().loop(self.image, True))
        os.close(device)
        self.patch(init.Kernel, "_shown", lambda _, file: None)
        self.patch(init.Kernel, "_show", lambda _, file: os.dup(file))
        device = init.Kernel().loop(self.image, True)
        with open(self.image) as other:
            self.assertRaises(BlockingIOError, init.Kernel()._lock, other.fileno(), 0.0)
        os.close(device)

    def test_volume(self) -> None:
        """The file system of a volume is made and shown while its lock is held, and no longer."""
        disk: dict[str, Any] = {"path": "/m", "image": "/v/disk.img", "size": 9, "flags": ["nodev"]}
        calls = self.calls("disk", lock="/v/1.json", **disk)
        opened = ("open", "/v/1.json", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        held = [call for call in calls if call[0] in ("open", "make_disk", "loop", "close")]
        made = ("make_disk", "/v/disk.img", 9, 1001 + calls.index(opened))
        self.assertEqual(held[:3], [opened, made, ("loop", "/v/disk.img", True)])
        self.assertEqual(held[-1], ("close", made[-1]))

    def test_why_not(self) -> None:
        """What the machine lacks is said."""
        for number, name, cause in (
            (ENOENT, "/usr/sbin/mke2fs", "there is no mke2fs on this machine"),
            (ENOENT, "/dev/loop-control", "this machine has no loop devices"),
            (errno.ENXIO, "/dev/loop7", "this machine has no loop devices"),
            (errno.ENOSPC, None, ""),
        ):
            self.assertEqual(init.why_no_disk(OSError(number, "", name))[0], cause)
        locked: Any = OSError(errno.EAGAIN, "")
        locked.call = "flock"
        cause = "it is in use: files are copied, or its last processes end"
        self.assertEqual(init.why_no_disk(locked)[0], cause)


class VolumeTests(Case):
    """Volumes, and folders of the host."""

    def failure(self, kernel: Recorder, op: str, **arguments: Any) -> tuple[str, int, str, str]:
        """What a step says of its failure: call, errno, path and cause."""
        with self.assertRaises(init.StepError) as caught:
            self.calls(op, kernel, **arguments)
        error = caught.exception
        return error.call, error.number, error.path, error.cause

    def test_volume(self) -> None:
        """It is filled from what is at its target, which is found in the new root; then mounted."""
        calls = self.calls("volume", source="/v/a", lock="1.json", target="/x", flags=["nodev"])
        names = [call[0] for call in calls]
        order = ["open_beneath", "place", "place", "open", "fill", "close", "bind", "close"]
        self.assertEqual(names, order)
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        self.assertEqual(calls[3], ("open", "/v/a/1.json", flags))
        self.assertEqual(calls[4], ("fill", "/v/a", 1004, 1001, 0))
        self.assertEqual(calls[6], ("bind", "/v/a/data", "/proc/self/fd/1001", 4, 0))

    def test_the_lock_of_a_volume_with_a_disk(self) -> None:
        """It is not on that disk: its path is absolute."""
        calls = self.calls("volume", source="/m", lock="/v/a/1.json", target="/x", flags=[])
        self.assertEqual(calls[3][:2], ("open", "/v/a/1.json"))

    def test_a_volume_that_was_removed(self) -> None:
        """A volume of the same name that was made since is another one."""
        kernel = Recorder().fail(3, ENOENT)
        arguments = {"source": "/v/a", "lock": "1.json", "target": "/x", "flags": []}
        said = self.failure(kernel, "volume", **arguments)
        self.assertEqual(said, ("open", ENOENT, "/v/a", "the volume was removed"))

    def test_host_folder(self) -> None:
        """What is mounted is the descriptor that was resolved below an allowed folder."""
        where: dict[str, Any] = {"target": "/x", "flags": ["ro"], "allowed": ["/home", "/srv"]}
        for path, below in (("/srv/a/b", "a/b"), ("/srv", ".")):
            calls = self.calls("host_folder", path=path, **where)
            flags = os.O_PATH | os.O_DIRECTORY
            self.assertEqual(calls[3], ("open", "/srv", flags | os.O_CLOEXEC))
            self.assertEqual(calls[4], ("open_strictly", 1004, below, flags))
            self.assertEqual(calls[6][:3], ("bind", "/proc/self/fd/1005", "/proc/self/fd/1001"))

    def test_host_folders_that_are_not_allowed(self) -> None:
        """One below no allowed folder, one that a link leads out of, and one that is not there."""
        where = {"target": "/x", "flags": ["ro"]}
        no_folder = "it is no folder that may be mounted"
        for path, allowed in (("/srvx", ["/srv"]), ("/etc", ["/srv", "/home"]), ("/srv", [])):
            said = self.failure(Recorder(), "host_folder", path=path, allowed=allowed, **where)
            self.assertEqual(said, ("openat2", errno.EXDEV, path, no_folder))
        for number, cause in (
            (errno.EXDEV, "a symbolic link leads out of /srv"),
            (ENOENT, "it is no folder of the host"),
        ):
            kernel = Recorder().fail(4, number)
            said = self.failure(kernel, "host_folder", path="/srv/a", allowed=["/srv"], **where)
            self.assertEqual(said, ("open_strictly", number, "/srv/a", cause))

    def test_owners_that_can_not_be_mapped(self) -> None:
        """The error says that the file system is the cause."""
        kernel = Recorder().fail(0, EINVAL)
        container = make_container(kernel)
        container.owner, container.user_namespace = 1 << 20, 7
        with self.assertRaises(init.StepError) as caught:
            container._bind_owned("/v", 5, ["ro"])
        self.assertIn("can't map the owners", caught.exception.cause)
        wanted = ("bind", "/v", "/proc/self/fd/5", 1 | init.MOUNT_ATTR_IDMAP, 7)
        self.assertEqual(kernel.calls, [wanted])


class FillTests(SynchronousTestCase):
    """The copy that fills a volume, with real files."""

    def setUp(self) -> None:
        self.source, self.volume = (os.path.abspath(self.mktemp()) for _ in range(2))
        for folder in (self.source, self.volume):
            os.makedirs(folder)
        self.held = os.open(f"{self.volume}/lock", os.O_RDWR | os.O_CREAT)
        self.place = os.open(self.source, os.O_PATH)
        self.addCleanup(os.close, self.held)
        self.addCleanup(os.close, self.place)
        self.data = f"{self.volume}/data"

    def fill(self) -> None:
        """Fill it."""
        init.Kernel().fill(self.volume, self.held, self.place, 0)

    def test_copy(self) -> None:
        """Contents, modes, times, links and attributes are the same; sockets are left out."""
        os.makedirs(f"{self.source}/a/b")
        with open(f"{self.source}/a/file", "wb") as file:
            file.write(os.urandom(100_000))
        os.setxattr(f"{self.source}/a/file", "user.x", b"1")
        os.link(f"{self.source}/a/file", f"{self.source}/a/b/again")
        os.symlink("/etc/passwd", f"{self.source}/link")
        os.mkfifo(f"{self.source}/pipe")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{self.place}/socket")  # its own path may be too long
        for path, mode in (("a/file", 0o4750), ("a/b", 0o1700), ("a", 0o711), ("pipe", 0o622)):
            os.chmod(f"{self.source}/{path}", mode)
        os.utime(f"{self.source}/a", ns=(10**18, 10**18 + 1))
        self.fill()
        listed = subprocess.check_output(
            ["find", ".", "-printf", "%p %M %s %l %T@\n"], cwd=self.source
        )
        copied = subprocess.check_output(
            ["find", ".", "-printf", "%p %M %s %l %T@\n"], cwd=self.data
        )
        whole = {
            line for line in listed.splitlines() if b"socket" not in line and line[:2] != b". "
        }
        same = {line for line in copied.splitlines() if line[:2] != b". "}
        self.assertEqual(
            {tuple(line.split()[:2]) for line in same}, {tuple(line.split()[:2]) for line in whole}
        )
        self.assertEqual(same, whole)
        with (
            open(f"{self.source}/a/file", "rb") as one,
            open(f"{self.data}/a/b/again", "rb") as other,
        ):
            self.assertEqual(one.read(), other.read())
        self.assertTrue(os.path.samefile(f"{self.data}/a/file", f"{self.data}/a/b/again"))
        self.assertEqual(os.getxattr(f"{self.data}/a/file", "user.x"), b"1")

    def test_once(self) -> None:
        """What is filled already stays as it is."""
        os.mkdir(self.data)
        os.mkdir(f"{self.source}/new")
        self.fill()
        self.assertEqual(os.listdir(self.data), [])

    def test_cut_short(self) -> None:
        """A copy that fails is no volume."""
        with open(f"{self.source}/file", "w") as file:
            file.write("x")
        with mock.patch("posix.sendfile", side_effect=OSError(errno.ENOSPC, "full")):
            self.assertRaises(OSError, self.fill)
        self.assertFalse(os.path.exists(self.data))
        self.fill()
        self.assertEqual(os.listdir(self.data), ["file"])


class WholePlans(Case):
    """Real plans, that go well or fail somewhere."""

    def test_every_op(self) -> None:
        """The plans of these tests use every op except idle."""
        used = {op for plan in PLANS.values() for op, _ in plan}
        ops = {name for name in vars(init.Container) if not name.startswith("_")}
        self.assertEqual(ops - used, {"idle"})

    def test_success(self) -> None:
        """All steps are done in order, and the last call of all is the exec."""
        for plan in PLANS.values():
            kernel = Recorder()
            said, durations = self.carry_out(plan, kernel)
            self.assertEqual(said, [{"done": durations}])
            self.assertEqual(durations, [1] * (len(plan) - 1))
            self.assertEqual([call[0] for call in kernel.calls].count("execve"), 1)
            self.assertEqual(kernel.calls[-1][:2], ("execve", plan[-1][1]["path"]))

    def test_done_is_said_before_the_exec(self) -> None:
        """The message "done" has a time for every step except the exec."""
        kernel, said = Recorder(), []

        def say(message: dict[str, list[float]]) -> None:
            said.append((json.dumps(message), kernel.calls[-1][0]))

        plan, container = PLANS["container"], make_container(kernel, Manager())
        self.assertRaises(Executed, init.carry_out, plan, container, say, [], lambda: 0.0)
        wanted = json.dumps({"done": [0.0] * (len(plan) - 1)})
        self.assertEqual(said, [(wanted, "load_filter")])

    def test_a_plan_in_two_parts(self) -> None:
        """Steps are numbered on from the base plan to the rest, also in failures."""
        plan = PLANS["container"]
        kernel = Recorder()
        said: list[Any] = []
        durations: list[float] = []
        container = make_container(kernel, Manager())
        self.assertTrue(init.carry_out(plan[:20], container, said.append, durations))
        self.assertEqual((said, len(durations)), ([], 20))
        kernel.fail(len(kernel.calls), EIO)
        self.assertFalse(init.carry_out(plan[20:], container, said.append, durations))
        self.assertEqual(said[0]["failed"]["step"], 20)

    def test_a_failure_at_each_call(self) -> None:
        """Whichever call fails, the step is named and no other call follows."""
        for plan in PLANS.values():
            whose = self.steps_of_calls(plan)
            self.assertGreater(len(whose), len(plan))
            for number, step in enumerate(whose):
                kernel = Recorder().fail(number, EIO)
                said, durations = self.carry_out(plan, kernel)
                call = kernel.calls[number]
                if plan[step][0] == "user" and call[0] in ("open_inside", "chdir", "close"):
                    continue  # that a home can't be entered is no failure
                (failed,) = [message["failed"] for message in said if "failed" in message]
                self.assertEqual((failed["step"], failed["errno"]), (step, EIO), call)
                self.assertIn(failed["call"], (call[0], "setuid"))
                self.assertEqual(len(durations), step)
                later = [name for name, *_ in kernel.calls[number + 1 :]]
                self.assertEqual(later, ["close"] * len(later), call)

    def test_nothing_stays_open(self) -> None:
        """A step leaves a descriptor open only for a later step; at the exec none is open."""
        for name, plan in PLANS.items():
            kernel = Recorder()
            container = make_container(kernel, Manager())
            for op, arguments in plan[:-1]:
                getattr(container, op)(**arguments)
                kept = {container.root, container.user_namespace, *dict(container.to_seal)} - {-1}
                kept |= {tree for _, tree in container.lent}
                self.assertEqual(set(kernel.places), kept, (name, op))
            self.assertEqual(kernel.places, {})
            self.assertEqual(kernel.calls.count(("close_from", 4)), 1)

    def steps_of_calls(self, plan: list[tuple[Any, ...]]) -> list[int]:
        """For each call of a plan that goes well: the number of its step."""
        kernel = Recorder()
        whose: list[Any] = []
        container = make_container(kernel, Manager())
        for number, step in enumerate(plan):
            with contextlib.suppress(Executed):
                init.carry_out([step], container, lambda _: None, [])
            whose += [number] * (len(kernel.calls) - len(whose))
        return whose

    def test_no_privilege_before_its_time(self) -> None:
        """The root is changed and powers are dropped in an order that leaves no way back."""
        for name in ("container", "as root"):
            kernel = Recorder()
            self.carry_out(PLANS[name], kernel)
            names = [call[0] for call in kernel.calls]
            names.reverse()  # to find the last of each
            order = [
                "unshare",
                "mount",
                "pivot_root",
                "sethostname",
                "setgroups",
                "setgid",
                "setuid",
                "capset",
                "load_filter",
                "execve",
            ]
            self.assertEqual(sorted(order, key=names.index, reverse=True), order)
            no_new_privileges = kernel.calls[::-1].index(("prctl", init.PR_SET_NO_NEW_PRIVS, 1))
            self.assertGreater(no_new_privileges, names.index("load_filter"))

    def test_an_unknown_step_is_no_silence(self) -> None:
        """An unknown op is a failure, and is not skipped."""
        (message,) = self.carry_out([("fly", {})], Recorder())[0]
        self.assertIn("fly", message["failed"]["cause"])


class FileTree(Case):
    """The steps that mount and make, one by one."""

    def test_a_mount_point_that_is_there(self) -> None:
        """A target is opened beneath the root, and the mount uses this descriptor, not the path."""
        calls = self.calls("mount", target="/a/b", fstype="tmpfs", flags=["nosuid"], data="size=1m")
        flags = os.O_PATH | os.O_DIRECTORY
        self.assertEqual(
            calls,
            [
                ("open_beneath", -1, "/a/b", flags, init.RESOLVE_NO_SYMLINKS),
                ("mount", "tmpfs", "/proc/self/fd/1001", "tmpfs", 2, "size=1m"),
                ("close", 1001),
            ],
        )

    def test_mount_points_are_made(self) -> None:
        """A target that is missing is made, folder by folder, each beneath the root."""
        kernel = Recorder().fail(0, ENOENT).fail(1, ENOENT)  # of the target, and of its parent
        calls = self.overlay(kernel, target="/a/b")
        made = [call for call in calls if call[0] == "mkdir" and len(call) == 4]
        self.assertEqual([(call[1], call[2]) for call in made], [("a", 0o755), ("b", 0o755)])
        self.assertEqual(calls[-1][0], "close")
        self.assertEqual(kernel.places, {})

    def test_a_dangling_mount_point(self) -> None:
        """If a target is a link to nowhere, the folder that it names is made, beneath the root."""
        kernel = Recorder().fail(0, ENOENT).fail(3, EEXIST)
        calls = self.overlay(kernel, target="/a/link")
        flags = os.O_PATH | os.O_DIRECTORY
        self.assertEqual(
            calls[1:6],
            [
                ("open_beneath", -1, "/a", flags, 0),
                ("place", -1, 1002),
                ("mkdir", "link", 0o755, 1002),
                ("readlink", "link", 1002),
                ("open_beneath", -1, "/a/../x", flags, 0),
            ],
        )
        self.assertEqual(kernel.places, {})

    def test_an_overlay(self) -> None:
        """The top of the upper layer gets the owner and mode of the lower one's."""
        calls = self.overlay(flags=["nosuid", "nodev"], volatile=True)
        self.assertEqual(
            calls[3:-1],
            [
                ("mkdir", "/u", 0o755),
                ("mkdir", "/w", 0o755),
                ("stat", "/l"),
                ("chown", "/u", 33, 34),
                ("chmod", "/u", 0o750),
                (
                    "mount",
                    "overlay",
                    "/proc/self/fd/1001",
                    "overlay",
                    6,
                    "lowerdir=/l,upperdir=/u,workdir=/w,volatile",
                ),
            ],
        )

    def test_paths_of_an_overlay(self) -> None:
        """No character ends a path early: otherwise an image could name a folder of the host."""
        calls = self.overlay(lower=["/l:/etc"], upper="/u,x=y", work="/w\\")
        (mount,) = [call for call in calls if call[0] == "mount"]
        self.assertEqual(mount[-1], r"lowerdir=/l\:/etc,upperdir=/u\,x=y,workdir=/w\\")

    def test_layers_that_are_there(self) -> None:
        """Private layers of an earlier run are used again; missing folders above are made."""
        kernel = Recorder().fail(3, ENOENT).fail(6, EEXIST)
        calls = self.overlay(kernel, upper="/p/0/u", work="/p/0/w")
        made = [call[1] for call in calls if call[0] == "mkdir"]
        self.assertEqual(made, ["/p/0/u", "/p/0", "/p/0/u", "/p/0/w"])
        self.assertIn("mount", [call[0] for call in calls])

    def test_the_containers_own(self) -> None:
        """A target that leads to /proc, /sys, /dev or the top is refused with a reason."""
        layers = {"lower": ["/l"], "upper": "/u", "work": "/w", "volatile": False}
        for place in ("/proc/sys", "/sys", "/dev/shm", "/"):
            kernel = Recorder()
            self.patch(kernel, "place", lambda *_, place=place: place)
            plan = [("overlay", {"target": "/data", "flags": [], "sealed": False, **layers})]
            (message,) = self.carry_out(plan, kernel)[0]
            self.assertEqual(message["failed"]["path"], "/data")
            self.assertIn(f"leads to {place}, which is", message["failed"]["cause"])
            self.assertNotIn("mount", [name for name, *_ in kernel.calls])

    def test_sealing_what_was_mounted(self) -> None:
        """A mount is sealed where its target led before the mount, not where it leads now."""
        kernel = Recorder()
        self.patch(kernel, "place", lambda *_: "/real")
        self.overlay(kernel, target="/link/x", sealed=True)
        last = ("open_beneath", -1, "/real", os.O_PATH, init.RESOLVE_NO_SYMLINKS)
        self.assertEqual(kernel.calls[-1], last)

    def test_sealing(self) -> None:
        """READ mounts are made read-only once all is mounted, by descriptors opened before."""
        kernel = Recorder()
        container = make_container(kernel)
        layers = {"lower": ["/l"], "upper": "/u", "work": "/w", "volatile": False}
        for target, sealed in (("/a", True), ("/b", False)):
            container.overlay(target, ["nosuid"], sealed, **layers)
        self.assertFalse([call for call in kernel.calls if call[0] == "mount" and call[4] & 1])
        (descriptor, _), *more = container.to_seal
        self.assertEqual(more, [])
        del kernel.calls[:]
        container.seal()
        container.seal()
        flags = init.bits(["remount", "bind", "ro", "nosuid"])
        self.assertEqual(
            kernel.calls,
            [
                ("mount", None, f"/proc/self/fd/{descriptor}", None, flags, ""),
                ("close", descriptor),
            ],
        )

    def test_binds(self) -> None:
        """A bind mount, and all below it, has its flags from the first moment."""
        on = "/proc/self/fd/{}".format
        powerless = init.bits(["ro", "nosuid", "nodev", "noexec"])
        masking = init.bits(["ro", "nosuid", "noexec"])  # /dev/null is to be read as empty
        for op, arguments, wanted in (
            ("bind", {"source": "/usr", "target": "/x", "flags": ["ro"]}, ("/usr", on(1002), 1)),
            ("mask", {"source": "/empty", "path": "/x"}, ("/empty", on(1001), powerless)),
            ("mask", {"source": "/dev/null", "path": "/x"}, ("/dev/null", on(1001), masking)),
            ("read_only_path", {"path": "/x"}, (on(1001), on(1001), powerless)),
        ):
            kernel = Recorder()
            binds = [call[1:] for call in self.calls(op, kernel, **arguments) if call[0] == "bind"]
            self.assertEqual((binds, kernel.places), ([wanted], {}), op)

    def test_a_file_is_bound_on_a_file(self) -> None:
        """A file is bound on a new empty file."""
        kernel = Recorder()
        self.patch(kernel, "stat", lambda path: SimpleNamespace(st_mode=stat.S_IFREG))
        made = [
            call
            for call in self.calls("bind", kernel, source="/tar", target="/x", flags=[])
            if call[0] == "mknod"
        ]
        self.assertEqual([call[1:3] for call in made], [("x", stat.S_IFREG | 0o644)])

    def add(self, kernel: Recorder, **changes: Any) -> list[Any]:
        """The calls that add a file."""
        said = {"path": "/a/f", "place": "/s/0", "mode": 0o640, "owner": "www", "content": "x"}
        return self.calls("add_file", kernel, **{**said, **changes})

    def test_a_small_file(self) -> None:
        """It is written with its owner and mode, and mounted read-only on what is there."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        folder = os.O_PATH | os.O_DIRECTORY
        read_only = init.bits(["ro", "nosuid", "nodev"])
        kernel = Recorder()
        self.assertEqual(
            self.add(kernel),
            [
                ("open", "/s/0", flags, 0o600),
                ("write", 1001, b"x"),
                ("chown", 1001, 33, 35),
                ("chmod", 1001, 0o640),
                ("close", 1001),
                ("open_beneath", -1, "/a", folder, 0),
                ("place", -1, 1006),
                ("open_beneath", 1006, "f", os.O_PATH, init.RESOLVE_NO_SYMLINKS),
                ("close", 1006),
                ("stat", 1008),
                ("bind", "/s/0", "/proc/self/fd/1008", read_only),
                ("close", 1008),
            ],
        )
        self.assertEqual(kernel.places, {})

    def test_a_place_for_a_small_file(self) -> None:
        """What is missing is made, and a link is replaced; neither is ever followed."""
        opened = ("open_beneath", 1006, "f", os.O_PATH, init.RESOLVE_NO_SYMLINKS)
        made = ("mknod", "f", stat.S_IFREG | 0o644, 1006)
        for number, wanted in (
            (ENOENT, [made, opened]),
            (errno.ELOOP, [("unlink", "f", 1006), made, opened]),
        ):
            kernel = Recorder().fail(7, number)
            calls = self.add(kernel)
            self.assertEqual(calls[8 : 8 + len(wanted)], wanted)
            self.assertEqual(kernel.places, {})

    def test_no_place_for_a_small_file(self) -> None:
        """A folder in its place, or an owner that the user namespace lacks, is named."""
        kernel = Recorder()
        self.patch(init.stat, "S_ISDIR", lambda mode: True)
        error = self.assertRaises(init.StepError, self.add, kernel)
        self.assertEqual((error.cause, kernel.places), ("there is a folder at /a/f", {}))
        container = make_container(Recorder())
        container.owner = 1 << 20
        said = ("/a/f", "/s/0", 0o640, "65536", "x")
        error = self.assertRaises(init.StepError, container.add_file, *said)
        self.assertEqual(error.cause, "a user namespace has only the ids below 65536")

    def test_a_copy(self) -> None:
        """A copy is read from the host, no link followed; its owner is that of the namespace."""
        kernel = Recorder()
        container = make_container(kernel)
        container.owner = 1 << 20
        container.add_copy("/a/f", "/s/0", 0o400, "www", "/secrets/db")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        opened = ("open", "/secrets/db", flags)
        read = ("read", 1001, init.LONGEST_COPY + 1)
        self.assertEqual(kernel.calls[:3], [opened, read, ("close", 1001)])
        self.assertIn(("write", 1004, b"secret"), kernel.calls)
        self.assertIn(("chown", 1004, (1 << 20) + 33, (1 << 20) + 35), kernel.calls)
        self.assertEqual(init.LONGEST_COPY, small_files.LONGEST_SECRET)

    def test_no_copy(self) -> None:
        """What can't be read, or is too long, is named; its content is in no error."""
        said = {"path": "/a", "place": "/s/0", "mode": 0o400, "owner": "www", "source": "/s/db"}
        for kernel in (Recorder().fail(0, ENOENT), Recorder().fail(1, EIO)):
            error = self.assertRaises(init.StepError, self.calls, "add_copy", kernel, **said)
            self.assertEqual((error.path, error.cause), ("/s/db", "/s/db can't be copied"))
        kernel = Recorder()
        self.patch(kernel, "result", lambda name, *_: b"s" * 65537 if name == "read" else 7)
        error = self.assertRaises(init.StepError, self.calls, "add_copy", kernel, **said)
        self.assertEqual(error.cause, "/s/db is longer than 65536 bytes")

    def test_standard_streams(self) -> None:
        """The logs are appended to, never truncated, and not through a link."""
        calls = self.calls("input", path="/in") + self.calls("output", stdout="/out", stderr="/err")
        opened = [call for call in calls if call[0] == "open"]
        self.assertEqual([call[1] for call in opened], ["/in", "/out", "/err"])
        for call in opened:
            self.assertTrue(call[2] & os.O_NOFOLLOW and call[2] & os.O_CLOEXEC)
            self.assertFalse(call[2] & os.O_TRUNC)
        for call in opened[1:]:
            self.assertTrue(call[2] & os.O_APPEND and call[2] & os.O_CREAT)
        self.assertEqual([call[2] for call in calls if call[0] == "dup2"], [0, 1, 2])

    def test_one_stream(self) -> None:
        """Both streams of tar become one text, in order."""
        self.assertEqual(self.calls("output_as_error"), [("dup2", 2, 1)])

    def test_a_folder_as_the_root(self) -> None:
        """A folder of the host becomes the root with its flags set, before anything can use it."""
        calls = self.calls("root_folder", mountpoint="/root", source="/layer", flags=["nosuid"])
        bind = init.bits(["bind"])
        self.assertEqual(
            calls[:3],
            [
                ("mkdir", "/root", 0o755),
                ("mount", "/layer", "/root", None, bind, ""),
                ("mount", None, "/root", None, bind | init.bits(["remount", "nosuid"]), ""),
            ],
        )

    def test_devices(self) -> None:
        """A device may be opened by anyone, whatever the umask is."""
        calls = self.calls("device", path="/dev/null", major=1, minor=3)
        number = os.makedev(1, 3)
        self.assertIn(("mknod", "null", stat.S_IFCHR | 0o666, number, 1001), calls)
        self.assertIn(("chmod", "null", 0o666, 1001), calls)


class PauseTests(Case):
    """A launch that stops before each step."""

    def test_pause(self) -> None:
        """The init says that it waits; if the manager has ended meanwhile, so does the init."""
        manager = Manager()
        make_container(Recorder(), manager).pause()
        self.assertEqual(json.loads(manager.received), {"wants": "step"})
        self.patch(Manager, "recv", lambda *_: b"")
        error = self.assertRaises(init.StepError, make_container(Recorder(), manager).pause)
        self.assertEqual(error.cause, "the manager has ended")

    def test_a_link_meanwhile(self) -> None:
        """If the link is there while the init waits, it waits on, and later not for the link."""
        said = [b"\n", b"."]
        self.patch(Manager, "recv", lambda *_: said.pop(0))
        kernel = Recorder()
        container = make_container(kernel, Manager())
        container.pause()
        self.assertEqual(said, [])
        container.link("10.0.0.2", "255.255.0.0", "10.0.0.1")
        self.assertEqual(len(kernel.calls), 4)


class Network(Case):
    """The steps that make a network of the container's own."""

    def test_a_link(self) -> None:
        """The init asks for a link, waits for it, and then sets address, mask, state and route."""
        kernel, manager = Recorder(), Manager()
        container = make_container(kernel, manager)
        container.ask_for_link()
        self.assertEqual(json.loads(manager.received), {"wants": "link"})
        container.link("10.0.0.2", "255.255.0.0", "10.0.0.1")
        requests = [call[1] for call in kernel.calls]
        self.assertEqual(
            requests, [init.SIOCSIFADDR, init.SIOCSIFNETMASK, init.SIOCSIFFLAGS, init.SIOCADDRT]
        )
        for call, address in zip(kernel.calls, ("10.0.0.2", "255.255.0.0"), strict=False):
            self.assertEqual(call[2][:5], b"eth0\0")
            self.assertEqual(call[2][20:24], socket.inet_aton(address))
        self.assertEqual(len(kernel.calls[0][2]), 40)  # struct ifreq
        self.assertIn(socket.inet_aton("10.0.0.1"), kernel.calls[-1][2])
        self.assertGreaterEqual(len(kernel.calls[-1][2]), 120)  # struct rtentry

    def test_a_link_of_ipv6(self) -> None:
        """The address is used at once, and the gateway is reached through the link."""
        (_, interface), (_, new, address), (_, then, route) = self.calls(
            "link6", address="fd00::2", length=64, gateway="fd00::1"
        )
        self.assertEqual((interface, new, then), ("eth0", init.RTM_NEWADDR, init.RTM_NEWROUTE))
        index = struct.pack("I", 1001)  # what the recorder says
        nodad = bytes([socket.AF_INET6, 64, 0x02, 0])  # struct ifaddrmsg
        own = socket.inet_pton(socket.AF_INET6, "fd00::2")
        self.assertEqual(address, nodad + index + b"\x14\0\x02\0" + own)
        gateway = socket.inet_pton(socket.AF_INET6, "fd00::1")
        self.assertTrue(route.startswith(bytes([socket.AF_INET6, 0, 0, 0, 254, 4, 0, 1])))
        self.assertEqual(route[12:], b"\x14\0\x05\0" + gateway + b"\x08\0\x04\0" + index)

    def test_the_manager_ends_meanwhile(self) -> None:
        """An end-of-file instead of the link is a failure, and nothing is set up."""
        kernel = Recorder()
        container = make_container(kernel, Manager())
        addresses = ("10.0.0.2", "255.0.0.0", "10.0.0.1")
        error = self.assertRaises(init.StepError, container.link, *addresses)
        self.assertIn("the manager has ended", error.cause)
        self.assertEqual(kernel.calls, [])

    def test_loopback(self) -> None:
        """The loopback interface is set up."""
        (call,) = self.calls("loopback")
        self.assertEqual(call[:2], ("configure_network", init.SIOCSIFFLAGS))
        self.assertEqual(call[2][:16], b"lo".ljust(16, b"\0"))
        self.assertEqual(call[2][16], init.IFF_UP)

    def test_setting(self) -> None:
        """A setting is written, but its file is never created."""
        opened, *others = self.calls("setting", path="/proc/sys/net/x", value="1")
        self.assertEqual(opened[:3], ("open", "/proc/sys/net/x", os.O_WRONLY | os.O_CLOEXEC))
        self.assertEqual([call[0] for call in others], ["write", "close"])

    def test_a_file_takes_the_place_of_a_link(self) -> None:
        """What the image has at a path is removed if it is there, and never written through."""
        for kernel in (Recorder(), Recorder().fail(2, ENOENT)):
            calls = self.calls("file", kernel, path="/etc/hosts", content="é\n")
            self.assertEqual(calls[2], ("unlink", "hosts", 1001))
            self.assertEqual(calls[3][:2], ("open", "hosts"))
            self.assertTrue(calls[3][2] & os.O_EXCL)
            self.assertEqual(calls[4], ("write", 1004, "é\n".encode()))
            self.assertEqual([call[0] for call in calls[5:]], ["close", "close"])


class Identity(Case):
    """Who the container runs as."""

    def test_accounts(self) -> None:
        """A name or number is looked up in the image's files; groups come with it."""
        for owner, wanted in (
            ("root", ("root", 0, 0, "/root", [0])),
            ("0", ("root", 0, 0, "/root", [0])),
            ("www", ("www", 33, 35, "/srv", [35, 4])),
            ("homeless", ("homeless", 40, 40, "/", [40])),
            ("4711", ("4711", 4711, 4711, "/", [4711])),
            ("1000", ("1000", 1000, 1000, "/", [1000])),  # not the user whose name that is
            ("033", ("www", 33, 35, "/srv", [35, 4])),
            ("4294967294", ("4294967294", 4294967294, 4294967294, "/", [4294967294])),
            ("www:others", ("www", 33, 36, "/srv", [36])),
            ("www:4", ("www", 33, 4, "/srv", [4])),
            ("4711:4294967294", ("4711", 4711, 4294967294, "/", [4294967294])),
        ):
            account = init.find_account(owner)
            found = (account.name, account.uid, account.gid, account.home, account.groups)
            self.assertEqual(found, wanted)

    def test_unknown(self) -> None:
        """A name that the image does not know, or knows by an impossible number, is an error."""
        for owner in "nobody split evil short bin big huge group minus nul".split():
            error = self.assertRaises(init.StepError, init.find_account, owner)
            self.assertIn(repr(owner), error.cause)
            self.assertEqual((error.number, error.path), (0, "/etc/passwd"))
        for group in "nobody nonsense huge".split():
            error = self.assertRaises(init.StepError, init.find_account, f"www:{group}")
            self.assertIn(repr(group), error.cause)
            self.assertEqual((error.number, error.path), (0, "/etc/group"))

    def test_an_image_without_files(self) -> None:
        """Without a passwd file there are still root and numbers."""
        self.files.clear()
        self.assertEqual(init.find_account("root").uid, 0)
        self.assertEqual(init.find_account("33").groups, [33])
        self.assertRaises(init.StepError, init.find_account, "www")

    def test_root_keeps_capabilities(self) -> None:
        """Root keeps the capabilities of the plan, any other user none."""
        for owner, mask in (("root", 0b1011), ("www", 0), ("4711", 0)):
            self.assertIn(("capset", mask), self.calls("user", owner=owner, capabilities=[0, 1, 3]))

    def test_the_order(self) -> None:
        """The groups are set first and the user last, as only root can; then it goes home."""
        calls = self.calls("user", owner="www", capabilities=[0])
        self.assertEqual(
            calls,
            [
                ("setgroups", [35, 4]),
                ("setgid", 35),
                ("setuid", 33),
                ("capset", 0),
                ("prctl", init.PR_SET_PDEATHSIG, 9),
                ("open_inside", "/srv", os.O_PATH | os.O_DIRECTORY),
                ("chdir", 1006),
                ("close", 1006),
            ],
        )

    def test_without_a_home(self) -> None:
        """A user whose home can't be entered works at the top."""
        flags = os.O_PATH | os.O_DIRECTORY
        for failing, wanted in (
            (("open_inside", "/srv", flags), ["open_inside"]),
            (("chdir", 1006), ["open_inside", "chdir", "close"]),
        ):
            kernel = Recorder().fail(failing, ENOENT)
            calls = self.calls("user", kernel, owner="www", capabilities=[])
            self.assertEqual([name for name, *_ in calls[5:]], wanted)
            self.assertEqual(kernel.places, {})

    def test_the_bounding_set(self) -> None:
        """Every capability of this kernel is dropped, except those to keep.

        How many it has is asked of itself: a file in /proc may not be what it seems.
        """
        beyond = ("prctl", init.PR_CAPBSET_DROP, 41)
        calls = self.calls("bounding_set", Recorder().fail(beyond, EINVAL), keep=[0, 40])
        wanted = [("prctl", init.PR_CAPBSET_DROP, number) for number in range(1, 40)]
        self.assertEqual(calls, [*wanted, beyond])


class JoiningTests(Case):
    """How a command joins a container."""

    def test_the_parent(self) -> None:
        """The parent of the command keeps nothing open, and stands for the command."""
        kernel, calls = Recorder(), []
        self.patch(kernel, "result", lambda name, *_: 5 if name == "fork" else None)
        calls = self.calls("fork", kernel)
        dies = ("prctl", init.PR_SET_PDEATHSIG, signal.SIGKILL)
        self.assertEqual(calls, [("fork",), dies, ("close_from", 0), ("stand_for", 5)])

    def test_the_child(self) -> None:
        """The command's process dies with its parent too."""
        dies = ("prctl", init.PR_SET_PDEATHSIG, signal.SIGKILL)
        self.assertEqual(self.calls("fork"), [("fork",), dies])

    def test_order(self) -> None:
        """It hides before it joins, joins before it forks, and gives up its powers after that."""
        kernel = Recorder()
        self.carry_out(PLANS["exec"], kernel)
        names = [call[0] for call in kernel.calls]
        order = ["prctl", "write", "join", "fork", "close_from", "setuid", "open_terminal"]
        self.assertEqual(sorted(order, key=names.index), order)
        self.assertEqual(kernel.calls[0], ("prctl", init.PR_SET_DUMPABLE, 0))
        kinds = sum(init.NAMESPACES[name] for name in init.NAMESPACES)
        self.assertIn(("join", 4711, 99, kinds), kernel.calls)

    def test_terminal(self) -> None:
        """The terminal has its size before the command runs, and only the manager its master."""
        kernel, manager = Recorder(), Manager()
        make_container(kernel, manager).terminal(rows=3, columns=4)
        calls = [("dup2", 1002, number) for number in range(3)]
        opened = [("open_terminal",), ("open_other_end", 1001), ("control", 1002, 3, 4)]
        self.assertEqual(kernel.calls, [*opened, *calls, ("close", 1002), ("close", 1001)])
        self.assertEqual(manager.received, b'{"passes":"terminal"}\n')


class StreamTests(Case):
    """A connection as standard input and output."""

    def setUp(self) -> None:
        super().setUp()
        self.kernel = Recorder()
        self.container = make_container(self.kernel, Manager())  # to which descriptor 3 leads
        self.container.passed = 9

    def test_stream(self) -> None:
        """It becomes both, and is not open a third time."""
        self.container.stream()
        self.assertEqual(self.kernel.calls, [("dup2", 9, 0), ("dup2", 9, 1), ("close", 9)])

    def test_others_closed(self) -> None:
        """It stays when all others are closed."""
        self.container.close_descriptors()
        self.assertEqual(self.kernel.calls, [("dup2", 9, 4), ("close_from", 5)])
        self.container.stream()
        self.assertEqual(self.kernel.calls[2:], [("dup2", 4, 0), ("dup2", 4, 1), ("close", 4)])

    def test_with_an_init(self) -> None:
        """PID 1 does not hold it: it ends when the program closes it."""
        self.patch(self.kernel, "result", lambda name, *_: {"fork": 5}.get(name))
        self.assertRaises(SystemExit, self.container.look_after)
        self.assertIn(("close", 9), self.kernel.calls)


class WorkingFolder(Case):
    """The folder that a config names to work in."""

    def test_entered(self) -> None:
        """It is opened without following a magic link, and nothing of it stays open."""
        kernel = Recorder()
        calls = self.calls("workdir", kernel, path="/data")
        flags = os.O_PATH | os.O_DIRECTORY
        wanted = [("open_inside", "/data", flags), ("chdir", 1001), ("close", 1001)]
        self.assertEqual((calls, kernel.places), (wanted, {}))

    def test_not_entered(self) -> None:
        """If it can't be entered, the launch fails, and says why."""
        self.patch(init.os, "access", lambda path, mode: path != "/usr/data")
        self.patch(init.os, "stat", lambda path: SimpleNamespace(st_mode=0o40700))
        for number, cause in (
            (ENOENT, "there is no folder /usr/data in the container"),
            (errno.EACCES, "/usr/data may not be entered by this startup_owner"),
            (errno.ENOTDIR, "/usr/data is not a folder that can be entered"),
        ):
            kernel = Recorder().fail(0, number)
            error = self.assertRaises(
                init.StepError, self.calls, "workdir", kernel, path="/usr/data"
            )
            self.assertEqual((error.number, error.cause), (number, cause))
            self.assertTrue(error.hint)


class AlongPath(SynchronousTestCase):
    """Where the program of a name is."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        for name, mode in (("a/run", 0o644), ("b/run", 0o755), ("c/run", 0o755)):
            path = os.path.join(self.folder, name)
            os.makedirs(os.path.dirname(path))
            with open(path, "w") as file:
                file.write("#!/bin/sh\n")
            os.chmod(path, mode)
        os.makedirs(os.path.join(self.folder, "folder/run"))

    def found(self, name: str, *folders: str) -> str:
        path = ":".join(os.path.join(self.folder, folder) for folder in folders)
        return os.path.relpath(init.find_program(name, path, "command"), self.folder)

    def test_the_first(self) -> None:
        """It is the first file that can be run; a folder of this name is none."""
        self.assertEqual(self.found("run", "none", "folder", "b", "c"), "b/run")
        self.assertEqual(self.found("run", "a", "c", "b"), "c/run")

    def test_none_can_be_run(self) -> None:
        """If no file of this name can be run, the exec says why of the first."""
        self.assertEqual(self.found("run", "a", "none"), "a/run")

    def test_nowhere(self) -> None:
        """If there is none, PATH is named, and arguments in the name of a program."""
        for name, hint in (
            ("fly", "correct command"),
            ("run -x", "make each argument of command a string"),
        ):
            error = self.assertRaises(init.StepError, self.found, name, "a", "b")
            self.assertIn(f"there is no {name} in the folders of PATH ({self.folder}", error.cause)
            self.assertEqual((error.number, error.path), (ENOENT, name))
            self.assertIn(hint, error.hint)

    def test_its_own_name(self) -> None:
        """The program is run by its place, and its first argument is the name as it was given."""
        kernel = Recorder()
        environment = [("PATH", (os.path.join(self.folder, "b"),))]
        container = make_container(kernel)
        self.assertRaises(Executed, container.exec, "run", ["-v"], environment, "command")
        place = os.path.join(self.folder, "b/run")
        self.assertEqual(kernel.calls[-1][:3], ("execve", place, ["run", "-v"]))

    def test_a_path(self) -> None:
        """What has a slash is not looked for along PATH; the error speaks of the command."""
        error = self.assertRaises(
            init.StepError, make_container(Attempt()).exec, "/no/run -x", [], [], "command"
        )
        self.assertEqual(error.cause, "there is no /no/run -x in the container")
        self.assertEqual(error.hint, init.SPLIT)


class Executing(Case):
    """The last step."""

    def environment(self, **arguments: Any) -> dict[str, str]:
        (call,) = self.calls("exec", path="/x", arguments=["-a"], **arguments)
        self.assertEqual(call[:3], ("execve", "/x", ["/x", "-a"]))
        return call[3]

    def test_the_environment(self) -> None:
        """The environment has only what the plan says and the account adds."""
        self.assertEqual(self.environment(environment=[("A", ("1",))]), {"A": "1"})
        kernel = Recorder()
        container = make_container(kernel)
        container.user("www", [])
        environment = [("A", ("", "HOME", "-", "USER", "")), ("HOME", ("/elsewhere",))]
        self.assertRaises(Executed, container.exec, "/x", [], environment)
        wanted = {"HOME": "/elsewhere", "USER": "www", "A": "/srv-www"}
        self.assertEqual(kernel.calls[-1][3], wanted)

    def test_a_script_without_an_interpreter(self) -> None:
        """Text without #! is run by /bin/sh; other files are not."""
        self.patch(init, "head", lambda path: b"echo hello\n")
        kernel = Recorder().fail(0, errno.ENOEXEC)
        calls = self.calls("exec", kernel, path="/x", arguments=["-a"], environment=[])
        self.assertEqual(calls[1], ("execve", "/bin/sh", ["/bin/sh", "/x", "-a"], {}))
        self.patch(init, "head", lambda path: b"\0\1\2")
        kernel = Recorder().fail(0, errno.ENOEXEC)
        self.assertRaises(
            init.StepError, self.calls, "exec", kernel, path="/x", arguments=[], environment=[]
        )
        self.assertEqual(len(kernel.calls), 1)

    def test_an_init(self) -> None:
        """PID 1 says no more, shows nothing of the host, and ends like its child."""
        kernel, manager = Recorder(), Manager()
        self.patch(kernel, "result", lambda name, *_: {"fork": 5, "look_after": 7}.get(name))
        error = self.assertRaises(SystemExit, make_container(kernel, manager).look_after)
        self.assertEqual((error.code, manager.received), (7, None))
        self.assertEqual(kernel.calls, [("rename", b"init"), ("fork",), ("look_after", 5)])

    def test_no_shell(self) -> None:
        """A script without #! in an image without a shell fails, and says why."""
        self.patch(init, "head", lambda path: b"echo hello\n")
        kernel = Recorder().fail(0, errno.ENOEXEC).fail(1, ENOENT)
        plan = [("exec", {"path": "/x", "arguments": [], "environment": []})]
        _, message = self.carry_out(plan, kernel)[0]
        self.assertEqual(message["failed"]["path"], "/bin/sh")
        self.assertIn("/x has no #! line", message["failed"]["cause"])

    def test_idle(self) -> None:
        """The image's sleep is run, wherever it is; without one the init itself stays."""
        sleep = ["sleep", "infinity"]
        for failing, wanted in ((0, ["/bin/sleep"]), (1, ["/bin/sleep", "/usr/bin/sleep"])):
            kernel = Recorder()
            for number in range(failing):
                kernel.fail(number, ENOENT)
            calls = self.calls("idle", kernel, environment=[("A", ("1",))])
            self.assertEqual(calls, [("execve", path, sleep, {"A": "1"}) for path in wanted])
        kernel = Recorder().fail(0, ENOENT).fail(1, errno.EACCES)
        self.assertRaises(init.Idle, self.calls, "idle", kernel, environment=[])


words = st.sampled_from(["${A}", "${B}", "${", "}", "$A", "${A B}", "${1}", "${é}", "x", "$"])
values = st.lists(words).map("".join).map(spec.REFERENCE.split)
assignments = st.lists(st.tuples(st.sampled_from("ABC"), values))


class Variables(Case):
    """Variables in the values of others."""

    @given(assignments, st.dictionaries(st.sampled_from("ABC"), st.text()))
    def test_the_same_as_the_specs(
        self, pairs: list[tuple[str, Any]], before: dict[str, str]
    ) -> None:
        """The init fills in exactly like the validator, though they share no code."""
        try:
            wanted = spec.fill_in(pairs, before)
        except InvalidData:
            self.assertRaises(init.StepError, init.fill_in, pairs, before)
        else:
            self.assertEqual(init.fill_in(pairs, before), wanted)

    @given(assignments, st.dictionaries(st.sampled_from("ABC"), st.text(max_size=9)))
    def test_the_same_as_a_reference(
        self, pairs: list[tuple[str, Any]], before: dict[str, str]
    ) -> None:
        """Each value is filled in with the variables as they were before it."""
        wanted = dict(before)
        for name, parts in pairs:
            value = "".join(f"${{{part}}}" if i % 2 else part for i, part in enumerate(parts))
            wanted[name] = re.sub(
                r"\$\{([A-Za-z_][A-Za-z_0-9]*)\}", lambda match: wanted.get(match[1], ""), value
            )
            if len(wanted[name]) > 2000:
                return
        self.assertEqual(init.fill_in(pairs, before), wanted)

    def test_growth(self) -> None:
        """Text that doubles itself is the config's fault, and memory stays bounded."""
        doubling = [("A", ("x",)), *[("A", ("", "A", "", "A", ""))] * 60]
        plan = [("exec", {"path": "/x", "arguments": [], "environment": doubling})]
        kernel = Recorder()
        _, message = self.carry_out(plan, kernel)[0]
        self.assertEqual(message["failed"]["errno"], 0)
        self.assertIn("startup_env", message["failed"]["cause"])
        self.assertEqual(kernel.calls, [])

    def test_the_limits_agree(self) -> None:
        """The init and the validator have the same bound, which fits into one string of execve."""
        self.assertEqual(init.LONGEST_ENVIRONMENT, spec.LONGEST_ENVIRONMENT)
        longest_name = len("A" * 128 + "=")
        self.assertLess(4 * init.LONGEST_ENVIRONMENT + longest_name, 32 * 4096)  # MAX_ARG_STRLEN


class ForReal(SynchronousTestCase):
    """The init as a process, with steps that need no root and change nothing.

    It uses private modules of the standard library (_ctypes, _json, _signal, _socket, _struct),
    which another Python may lack or have changed.
    """

    def carry_out(self, *plan: tuple[str, dict[str, Any]]) -> list[Any]:
        """Send an init a plan; return its messages, once it has ended."""
        path = os.path.relpath(self.mktemp())
        with socket.socket(socket.AF_UNIX) as manager:
            manager.bind(path)
            manager.listen()
            manager.settimeout(60)
            command = [sys.executable, "-I", "-S", "-B", init.__file__, path, "token"]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            connection, _ = manager.accept()
            with connection:
                connection.settimeout(60)
                text = marshal.dumps(plan)
                connection.sendall(len(text).to_bytes(4, "big") + text)
                with connection.makefile() as messages:
                    return [json.loads(line) for line in messages]

    def test_becomes_a_program(self) -> None:
        """An init carries out steps, says so, and becomes the program."""
        token, done = self.carry_out(
            ("no_new_privileges", {}),
            ("exec", {"path": "/bin/true", "arguments": [], "environment": []}),
        )
        self.assertEqual(token, {"token": "token"})
        self.assertEqual(len(done["done"]), 1)

    def test_what_the_kernel_refuses(self) -> None:
        """It says which system call failed, and by which error."""
        _, message = self.carry_out(("move", {"source": "", "target": "/nowhere"}))
        failed = {key: message["failed"][key] for key in ("step", "errno", "call", "path")}
        self.assertEqual(
            failed, {"step": 0, "errno": errno.EBADF, "call": "openat2", "path": "/nowhere"}
        )


class Attempt:
    """In place of init.Kernel: really executes, but in a process of its own."""

    def execve(self, path: str, arguments: list[str], environment: dict[str, Any]) -> None:
        subprocess.run(arguments, executable=path, env=environment, stdin=subprocess.DEVNULL)


class WhyNoExec(SynchronousTestCase):
    """The cause of an exec that failed, from real files that can't be run."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "run")

    def put(self, content: bytes, mode: int = 0o755) -> None:
        with open(self.path, "wb") as file:
            file.write(content)
        os.chmod(self.path, mode)

    def why(self, *words: str) -> int:
        """Really try to run it, and assert that cause and hint contain these words."""
        container = make_container(Attempt())
        error = self.assertRaises(init.StepError, container.exec, self.path, [], [])
        self.assertEqual((error.call, error.path), ("execve", self.path))
        for word in words:
            self.assertIn(word, f"{error.cause}; {error.hint}")
        self.assertTrue(error.hint)
        return error.number

    def test_missing(self) -> None:
        """There is no such file."""
        self.assertEqual(self.why(f"there is no {self.path}"), ENOENT)

    def test_a_dangling_link(self) -> None:
        """The link leads nowhere, and its target is named."""
        os.symlink("/nowhere/at-all", self.path)
        self.assertEqual(self.why("symbolic link to /nowhere/at-all"), ENOENT)

    def test_a_link_in_circles(self) -> None:
        """The link leads to itself."""
        os.symlink(self.path, self.path)
        self.assertEqual(self.why("can't be looked at"), errno.ELOOP)

    def test_below_a_file(self) -> None:
        """A part of the path is no folder."""
        self.put(b"#!/bin/sh\n")
        self.path += "/more"
        self.assertEqual(self.why("can't be looked at"), errno.ENOTDIR)

    def test_a_folder(self) -> None:
        """It is a folder."""
        os.mkdir(self.path)
        self.assertEqual(self.why("not a regular file"), errno.EACCES)

    def test_a_fifo(self) -> None:
        """It is a pipe, and nothing waits for it."""
        os.mkfifo(self.path, 0o755)
        self.assertEqual(self.why("not a regular file"), errno.EACCES)

    def test_mounted_noexec(self) -> None:
        """It is on a file system mounted noexec."""
        self.put(b"#!/bin/sh\n", 0o644)
        status = mock.Mock(f_flag=os.ST_NOEXEC)
        with mock.patch.object(init.os, "statvfs", lambda path: status):
            self.why(f"{self.path} lies on a file system mounted noexec; place it outside of it")

    def test_not_executable(self) -> None:
        """It has no execute bit."""
        self.put(b"#!/bin/sh\n", 0o644)
        self.assertEqual(self.why("not executable", "chmod +x run"), errno.EACCES)

    def test_no_interpreter(self) -> None:
        """Its interpreter is missing, and is named."""
        for line in (b"#!/opt/no/perl -w\n", b"#! /opt/no/perl", b"#!\t/opt/no/perl\t\n"):
            self.put(line)
            self.assertEqual(self.why("its interpreter /opt/no/perl is not in"), ENOENT)

    def test_an_interpreter_that_can_not_run(self) -> None:
        """Its interpreter is there, but can't be run."""
        self.put(b"#!/etc/passwd\n")
        self.assertEqual(self.why("its interpreter /etc/passwd can't be run"), errno.EACCES)

    def test_windows_line_ends(self) -> None:
        """It was written on Windows."""
        self.put(b"#!/bin/sh\r\necho hello\r\n")
        self.assertEqual(self.why("Windows line ends", "sed"), ENOENT)

    def put_elf(self, old: bytes, new: bytes) -> None:
        """This machine's shell, with some bytes changed near its beginning."""
        with open("/bin/sh", "rb") as file:
            content = file.read()
        self.assertIn(old, content[:4096])
        self.put(content.replace(old, new, 1))

    def test_another_processor(self) -> None:
        """It is built for another machine, and that is named."""
        with open("/bin/sh", "rb") as file:
            start = file.read(18)
        ours = start + self.number(init.OURS[os.uname().machine])
        self.put_elf(ours, start + self.number(0xFFF0))  # one that no one emulates
        self.assertEqual(self.why("is built for 65520,", os.uname().machine), errno.ENOEXEC)
        self.put_elf(ours, start + self.number(22))
        self.assertIn("is built for s390,", init.why_no_exec(self.path, errno.ENOEXEC)[0])

    def number(self, machine: int) -> bytes:
        return machine.to_bytes(2, sys.byteorder)

    def test_no_loader(self) -> None:
        """The loader that it asks for is missing."""
        self.put_elf(b"/ld-", b"/no-")
        self.assertEqual(self.why("dynamic loader", "C library"), ENOENT)

    def test_with_arguments(self) -> None:
        """The path of a program, with its arguments: it takes none."""
        self.path = "/bin/sleep 1000"
        self.assertEqual(self.why("there is no /bin/sleep 1000", "takes no arguments"), ENOENT)
        self.path = "/bin/no-such sleep"
        self.why("there is no /bin/no-such sleep in the container")

    def test_a_late_interpreter(self) -> None:
        """What comes before #! is named, and no shell runs the script instead."""
        python = b"#!/usr/bin/python3\nprint()\n"
        self.put(b"\xef\xbb\xbf" + python)
        self.why("not at the very beginning: a byte order mark is before it")
        for before in (b"\n", b"\r\n \n", b" ", b"# Licence\n#\n\n", b"\xef\xbb\xbf\n"):
            self.put(before + python)
            self.assertEqual(self.why("not at the very beginning"), errno.ENOEXEC)
        for content in (b"echo\n" + python, b"# a\n#!important\n", b"", b"#\n"):
            self.put(content)
            init.refuse_late_interpreter(self.path)

    def test_a_folder_that_may_not_be_entered(self) -> None:
        """The first folder that can't be entered is named, even if it is the image's top."""
        self.put(b"#!/bin/sh\n")
        for shut, said in ((self.folder, f"{self.folder} may not"), ("/", "the top folder (./)")):
            may = {self.folder: True, "/": True, shut: False}
            self.patch(init.os, "access", lambda path, mode, may=may: may.get(path, True))
            cause, hint = init.why_no_entry(self.path)
            self.assertIn(said, cause)
            self.assertIn("755", hint)

    def test_garbage(self) -> None:
        """It is not a program at all."""
        self.put(b"\0\1\2\3" * 100)
        self.assertEqual(self.why("the kernel can't run"), errno.ENOEXEC)
        self.put(b"\x7fELF")
        self.assertEqual(self.why("the kernel can't run"), errno.ENOEXEC)

    def test_not_for_this_owner(self) -> None:
        """Others may run it, but not this owner."""
        self.put(b"echo hello", 0o700)
        cause, _ = init.why_no_exec(self.path, errno.EACCES)
        self.assertIn("may not be run by this startup_owner", cause)

    def test_scripts(self) -> None:
        """A shell itself runs only text without a #! line."""
        for content, wanted in (
            (b"", True),
            (b"echo hello", True),
            (b"# comment\n", True),
            (b"#!/bin/sh", False),
            (b"\x7fELF", False),
            (b"a\0", False),
            ("é".encode(), True),
        ):
            self.put(content)
            self.assertEqual(init.is_script(self.path), wanted)

    def test_reading_is_bounded(self) -> None:
        """A file of the image is read to a bound, and only if it is a file."""
        self.put(b"x" * (init.LONGEST_FILE + 5))
        self.assertEqual(len(init.read_file(self.path)), init.LONGEST_FILE)
        os.unlink(self.path)
        os.mkfifo(self.path)
        self.assertRaises(OSError, init.read_file, self.path)
        self.assertRaises(OSError, init.read_file, self.folder)

    def test_only_files_are_read(self) -> None:
        """Devices, and files that the kernel makes up, are not read."""
        made_up = ["/proc/version", "/proc/self/fd/0", "/sys/kernel/uevent_seqnum", "/dev/zero"]
        for target in made_up:
            self.assertTrue(os.path.exists(target))
            os.symlink(target, self.path)
            self.assertRaises(OSError, init.read_file, self.path)
            os.unlink(self.path)
        self.put(b"plain")
        os.symlink("run", self.path + "-link")
        self.assertEqual(init.read_file(self.path + "-link"), "plain")


texts = st.text(st.characters(codec="utf-8"))
messages = st.recursive(
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
)


class Conversation(SynchronousTestCase):
    """What goes over the socket."""

    def setUp(self) -> None:
        self.here, self.there = socket.socketpair()
        self.addCleanup(self.here.close)
        self.addCleanup(self.there.close)
        self.here.settimeout(10)

    def send(self, *parts: bytes) -> None:
        """The manager sends these bytes, and hangs up."""
        for part in parts:
            self.there.sendall(part)
        self.there.close()

    def test_a_plan(self) -> None:
        """A plan arrives as it was sent, and so does the next one."""
        plan = container_plan(startup_env="A=é")
        message = marshal.dumps(plan)
        framed = len(message).to_bytes(4, "big") + message
        self.send(framed + framed[:1], framed[1:])
        self.assertEqual(init.receive_plan(self.here), (plan, -1))
        self.assertEqual(init.receive_plan(self.here), (plan, -1))
        self.assertEqual(init.receive_plan(self.here), (None, -1))

    def test_hung_up(self) -> None:
        """End-of-file means that no plan comes: at once, or in the middle of a message."""
        for parts in ([], [b"\0"], [b"\0\0\0\5"], [b"\0\0\0\5", b"abcd"], [b"\0\0\0\0"]):
            self.send(*parts)
            self.assertEqual(init.receive_plan(self.here), (None, -1))
            self.setUp()

    def test_passed(self) -> None:
        """What comes with a plan is taken, and no program that is run later inherits it."""
        message = marshal.dumps([])
        framed = len(message).to_bytes(4, "big") + message
        socket.send_fds(self.there, [framed], [self.there.fileno()])
        plan, passed = init.receive_plan(self.here)
        self.addCleanup(os.close, passed)
        self.assertEqual(plan, [])
        self.assertTrue(os.path.samestat(os.fstat(passed), os.fstat(self.there.fileno())))
        self.assertFalse(os.get_inheritable(passed))

    def test_garbage(self) -> None:
        """Anything else than a plan raises an error, so that the init ends."""
        self.send(b"\0\0\0\3???")
        self.assertRaises((ValueError, EOFError), init.receive_plan, self.here)

    @given(st.text("/a."))
    def test_split(self, path: str) -> None:
        """A path is taken apart as by os.path."""
        self.assertEqual(init.split(path), os.path.split(path))

    @given(st.binary())
    def test_bytes(self, path: bytes) -> None:
        """Whatever bytes a path has, they survive."""
        self.assertEqual(init.encoded(os.fsdecode(path)), path)

    @given(messages)
    def test_json(self, message: Any) -> None:
        """A message of the init is JSON, in one line."""
        line = init.to_json(message)
        self.assertEqual(json.loads(line), message)
        self.assertNotIn("\n", line)

    def test_failures_are_valid_text(self) -> None:
        """A failure can be shown and sent on, whatever bytes the image's paths hold."""
        error = init.StepError("execve", ENOENT, "/a\udcff", "no \udcfe", "x\udcfd")
        failed = json.loads(init.to_json(init.failure(3, error)))["failed"]
        "".join(map(str, failed.values())).encode()
        self.assertEqual((failed["step"], failed["errno"], failed["path"]), (3, ENOENT, "/a?"))

    def test_the_call_is_named(self) -> None:
        """A failed call of Python's own is known by the name of its system call."""
        error = self.assertRaises(OSError, init.Kernel().mkdir, "/proc/nowhere/x")
        self.assertEqual(error.call, "mkdir")
        error = self.assertRaises(OSError, init.Kernel().open_beneath, -1, "/x", os.O_PATH)
        self.assertEqual((error.call, error.errno), ("openat2", errno.EBADF))

    def test_someone_mounts_meanwhile(self) -> None:
        """A path is opened again if it went up while anyone mounted something, but not for ever."""
        kernel, tries = init.Kernel(), []
        results = [errno.EAGAIN] * 100 + [0] + [errno.EAGAIN] * 1000

        def call(*order: object, number: int) -> int:
            tries.append(order)
            if results[len(tries) - 1]:
                raise OSError(results[len(tries) - 1], "busy")
            return 7

        self.patch(kernel, "_call", call)
        self.assertEqual(kernel.open_beneath(3, "/a/../b", os.O_PATH), 7)
        self.assertEqual((len(tries), len({*tries})), (101, 1))
        self.assertRaises(BlockingIOError, kernel.open_beneath, 3, "/a/../b", os.O_PATH)
        self.assertEqual(len(tries), 101 + init.OPENAT2_TRIES)
