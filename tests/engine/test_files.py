"""The files of instances: which are meant, what is told of them, and what is kept."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

from tests.fakes import FakeJoiner, ManagerTestCase, make_manager
from txcontain.container.visit_plan import BORROWED
from txcontain.engine import files
from txcontain.engine.changes import changes
from txcontain.engine.files import split
from txcontain.engine.recovery import doctor, restore
from txcontain.errors import CalledOff, CannotCopy, InvalidData, MachineAtFault, NoSuchPath
from txcontain.host.cgroups import Cgroups
from txcontain.runtime.session import PASSED_AS_KILL

HOME = ["home.tar /home READWRITE"]


class FilesCase(ManagerTestCase):
    """A test with an instance that runs."""

    def setUp(self) -> None:
        super().setUp()
        self.instance = self.launch(mounts=HOME)
        self.heard: list[bytes] = []

    @property
    def joiner(self) -> FakeJoiner:
        """What plays the tar that was started last."""
        return self.reactor.joiners[-1]

    def reading(self, path: str = "/etc/hosts") -> Any:
        """A reader that is about to start."""
        return self.start(files.read(self.manager, self.instance, path))

    def running(self) -> Any:
        """One that reads: fires when it has ended."""
        transfer = self.successResultOf(self.reading())
        return self.start(transfer.run(self.heard.append, differs=True))

    def arguments(self) -> list[str]:
        """Those of the tar."""
        return self.joiner.steps[-1][1]["arguments"]

    def ends(self, *how: Any) -> None:
        """It ends so."""
        self.joiner.end(*how)
        self.joiner.close_pipes()


class PathTests(FilesCase):
    """What of a container is meant."""

    def test_split(self) -> None:
        """A path is a folder and what is in it; all that is in it, with a dot at the end."""
        for path, wanted in (
            ("/etc/hosts", ("/etc", "hosts")),
            ("/etc", ("/", "etc")),
            ("/etc/", ("/", "etc/")),
            ("/etc/.", ("/etc/.", ".")),
            ("/etc/..", ("/etc/..", ".")),
            ("/", ("/", ".")),
            ("//a//b", ("//a/", "b")),
        ):
            self.assertEqual(split(path), wanted)

    def test_arguments(self) -> None:
        """Tar gets a name as a name, whatever it is, and its kernel's folders only if asked for."""
        for path, end in (
            ("/srv/-rf", ["--format=gnu", "--", "-rf"]),
            ("/", ["--exclude=./dev/*", "--", "."]),
        ):
            self.successResultOf(self.reading(path))
            self.assertEqual(self.arguments()[-len(end) :], end)
        self.assertTrue(self.joiner.steps[-1][1]["path"].startswith(f"{BORROWED}/"))

    def test_look(self) -> None:
        """What stat(1) prints is told in words."""
        looking = self.start(files.look(self.manager, self.instance, "/srv/"))
        self.assertEqual(self.arguments()[-2:], ["--", "srv/"])
        self.joiner.write_out(b"41ed 0 4 4096 12")
        self.ends()
        wanted = {"name": "srv", "kind": "folder", "mode": 0o755, "owner": 0, "group": 4}
        said = self.successResultOf(looking)
        self.assertEqual(said, {**wanted, "size": 4096, "changed": 12})

    def test_missing(self) -> None:
        """What is not there has an error of its own."""
        self.reactor.works = False
        for number, cause, said in (
            (errno.ENOENT, "there is no /x", "there is no /x"),
            (errno.ELOOP, "", "/x can't be reached: Too many levels of symbolic links"),
        ):
            reading = self.reading()
            self.joiner.fail("visit", number, path="/x", cause=cause)
            self.assertEqual(str(self.failureResultOf(reading, NoSuchPath).value), said)

    def test_states(self) -> None:
        """The files of one that has ended are mounted again; one that is ending has to wait."""
        self.successResultOf(self.reading())
        self.assertIn("join", [op for op, _ in self.joiner.steps])
        self.ends()
        self.reactor.inits[-1].end("Done(1)")
        self.reactor.advance(0)
        self.successResultOf(self.reading())
        self.assertIn("root_overlay", [op for op, _ in self.joiner.steps])


class TransferTests(FilesCase):
    """How it flows and ends."""

    def test_well(self) -> None:
        """What tar writes is handed on; that a file has changed meanwhile is no failure."""
        for status in (0, 1):
            running = self.running()
            self.joiner.write_out(b"tar")
            self.ends(status)
            self.assertIsNone(self.successResultOf(running))
        self.assertEqual(self.heard, [b"tar", b"tar"])

    def test_failures(self) -> None:
        """Each end that is a failure says why."""
        for status, number, words, kind, said in (
            (2, None, b"", CannotCopy, "reading /etc/hosts in NAME → exit status 2"),
            (
                2,
                None,
                b"tar: a: Cannot open: No such file\ntar: b: Cannot open: Read-only file system\n",
                CannotCopy,
                "reading /etc/hosts in NAME → tar: b: Cannot open: Read-only file system → it "
                "can't be written there: the mount is READ, or it is the image",
            ),
            (
                2,
                None,
                b"tar: a: Cannot write: No space left on device\n",
                CannotCopy,
                "reading /etc/hosts in NAME → tar: a: Cannot write: No space left on device → no "
                "room is left there: remove something, or raise the limit",
            ),
            (
                None,
                signal.SIGXCPU,
                b"",
                MachineAtFault,
                "reading /etc/hosts in NAME → tar → killed by SIGXCPU",
            ),
        ):
            running = self.running()
            self.joiner.write_out(words, 2)
            self.ends(status, number)
            error = self.failureResultOf(running, kind).value
            self.assertEqual(str(error).replace(self.instance.name, "NAME"), said)

    def test_left_out(self) -> None:
        """Devices that can't be made are left out, and counted."""
        writing = files.write(self.manager, self.instance, "/home", owners=False)
        transfer = self.successResultOf(self.start(writing))
        self.assertEqual(self.arguments()[-1], "--no-same-owner")
        running = self.start(transfer.run(bytes))
        self.joiner.write_out(b"tar: a: Cannot mknod: Operation not permitted\n", 2)
        self.ends(2)
        self.assertIsNone(self.successResultOf(running))
        self.assertEqual(transfer.left_out, "left out: 1 device nodes")

    def test_removed_meanwhile(self) -> None:
        """When the instance is removed, tar is killed at once, and that is said."""
        running = self.running()
        removed = self.start(self.manager.destroy(self.instance.name))
        self.reactor.inits[-1].end("Done(0)")
        self.settle_all()
        self.assertIn(PASSED_AS_KILL, self.joiner.signals)
        self.ends(None, signal.SIGKILL)
        self.failureResultOf(running, CalledOff)
        removed.addErrback(lambda _: None)

    def settle_all(self) -> None:
        """Do what is due at once."""
        for _ in range(5):
            self.reactor.advance(0)


class CommitTests(FilesCase):
    """A new mountable."""

    def committing(self, name: str = "new.tar", target: str | None = None) -> Any:
        """A commit that is about to start."""
        work = files.commit(self.manager, self.instance, name, target, self.begun.append)
        return self.start(work)

    def setUp(self) -> None:
        super().setUp()
        self.begun: list[Any] = []
        self.mountables = self.manager.mountables

    def test_kept(self) -> None:
        """Tar writes into a file of its own, which gets its name when it is whole."""
        before = set(os.listdir(self.mountables))
        committing = self.committing()
        (beside,) = set(os.listdir(self.mountables)) - before
        path = os.path.join(self.mountables, beside)
        self.assertEqual(dict(self.joiner.steps)["output"], {"stdout": path})
        with open(path, "wb") as file:
            file.write(b"tar")
        self.ends()
        said = self.successResultOf(committing)
        self.assertEqual(said, {"mountable": "new.tar", "mount": "/home", "size": 3})
        self.assertEqual(set(os.listdir(self.mountables)) - before, {"new.tar"})

    def test_failed(self) -> None:
        """If it fails, or its client hangs up, nothing of it stays."""
        before = set(os.listdir(self.mountables))
        committing = self.committing()
        self.begun[-1].end("its client has hung up")
        self.ends(None, signal.SIGKILL)
        self.failureResultOf(committing, CalledOff)
        self.assertEqual(set(os.listdir(self.mountables)), before)

    def test_paused(self) -> None:
        """While it lasts the instance is frozen; but no record says so, which would outlast it."""
        group = os.path.join(self.folder, "group", self.instance.processes.token)
        os.makedirs(group)
        self.manager.pool.cgroups = Cgroups({"freezer": os.path.dirname(group)})
        state = Path(group, "freezer.state")
        state.write_text("THAWED")
        self.start(
            files.commit(
                self.manager, self.instance, "new.tar", None, self.begun.append, pause=True
            )
        )
        self.assertEqual((state.read_text(), self.instance.record["paused"]), ("FROZEN", False))
        self.ends()
        self.assertEqual(state.read_text(), "THAWED")

    def test_cut_short(self) -> None:
        """What a commit has left when its manager was killed, the next one removes, and no more."""
        before = set(os.listdir(self.mountables))
        self.committing()
        other = os.path.join(self.mountables, ".new.tar.0123456789abcdef.tmp")
        open(other, "w").close()
        self.addCleanup(os.unlink, other)
        done = restore(make_manager(self.reactor, self.folder))
        self.assertEqual(set(os.listdir(self.mountables)) - before, {os.path.basename(other)})
        self.assertIn("a commit cut short", "".join(done))

    def test_doctor(self) -> None:
        """Doctor removes it too, but leaves alone what is being written."""
        committed = self.committing()
        (writing,) = self.manager.committing
        old = os.path.join(self.mountables, writing.replace(".new.", ".old."))
        open(old, "w").close()
        found = self.now(doctor(self.manager))
        self.assertEqual(found, [f"removed {os.path.basename(old)}, a commit cut short"])
        self.assertIn(writing, os.listdir(self.mountables))
        self.ends()
        self.successResultOf(committed)
        self.assertEqual(self.manager.committing, set())

    def test_two_at_once(self) -> None:
        """Of two that want the same name, one gets it."""
        one, two = self.committing(), self.committing()
        self.reactor.joiners[-2].end()
        self.reactor.joiners[-2].close_pipes()
        self.successResultOf(one)
        self.ends()
        said = str(self.failureResultOf(two).value)
        self.assertIn("there is a new.tar in mountables/ already", said)


class WhereTests(ManagerTestCase):
    """Which place of an instance is meant."""

    def test_target(self) -> None:
        """The only writable place is found; of several, one has to be named."""
        cases: Any = (
            ({"mounts": HOME}, None, "/home"),
            ({"writable_root": True}, None, "/"),
            ({"mounts": HOME, "writable_root": True}, "/home", "/home"),
        )
        for config, target, wanted in cases:
            self.setUp()
            self.assertEqual(files._target(self.launch(**config), target), wanted)

    def test_memory(self) -> None:
        """What is in memory has no changes that can be seen, and is gone after the end."""
        instance = self.launch(mounts=HOME, limits={"disk": "1M"})
        self.failureResultOf(self.start(changes(self.manager, instance)), InvalidData)
        self.reactor.inits[-1].end("Done(1)")
        self.reactor.advance(0)
        self.assertRaises(InvalidData, files._target, instance, None)
