"""Durable files, with writes that are cut short at every point."""

import errno
import itertools
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

from attrs import asdict
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import make_folder
from txcontain.engine.store import Configs
from txcontain.errors import ConfigExists, NoSuchConfig
from txcontain.host import files
from txcontain.host.files import DISK, Disk, remove_leftovers

WRITERS = (files.write, files.write_soon, files.create)


class Stop(BaseException):
    """The process is killed here."""


def disk_full(*arguments: Any) -> None:
    """What a call does when the disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def stop(*arguments: Any) -> None:
    """What a call does when the process is killed in it."""
    raise Stop


def failing_disk(number: int | None, fail: Any, calls: Any = None) -> Any:
    """A disk whose call of this number, from 0, fails; their names are put into ``calls``."""
    counter = itertools.count()
    calls = [] if calls is None else calls

    def counted(name: str, call: Any) -> Any:
        def function(*arguments: Any) -> Any:
            calls.append(name)
            return (fail if next(counter) == number else call)(*arguments)

        return function

    return Disk(**{name: counted(name, call) for name, call in asdict(DISK).items()})


def one_byte_at_a_time(descriptor: Any, content: Any) -> Any:
    """A write that is as short as it can be."""
    return os.write(descriptor, content[:1])


class Case(SynchronousTestCase):
    """Has a folder with a file in it, or without."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "web.cfg")

    def put(self, content: Any) -> None:
        with open(self.path, "wb") as file:
            file.write(content)

    def content(self) -> Any:
        """What is in the file; nothing if there is none."""
        try:
            with open(self.path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def leftovers(self) -> Any:
        return [name for name in os.listdir(self.folder) if name != "web.cfg"]


class Files(Case):
    """The three ways to write."""

    def test_written(self) -> None:
        """Each makes a file with exactly this content, for its owner only, and no other file."""
        for write in WRITERS:
            for content in (b"", b"x", b"x" * 300_000):
                write(self.path, content)
                self.assertEqual(self.content(), content)
                self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
                self.assertEqual(self.leftovers(), [])
                os.unlink(self.path)

    def test_short_writes(self) -> None:
        """A disk that takes a byte at a time still gets all of them."""
        for write in WRITERS:
            write(self.path, b"content", Disk(write=one_byte_at_a_time))
            self.assertEqual(self.content(), b"content")
            os.unlink(self.path)

    def test_order(self) -> None:
        """The content is flushed before it has its name, and the name before the caller goes on."""
        for write, wanted in (
            (files.write, ["write", "flush", "rename", "flush"]),
            (files.create, ["write", "flush", "link", "flush", "unlink"]),
            (files.write_soon, ["write", "rename"]),
        ):
            calls: list[Any] = []
            write(self.path, b"content", failing_disk(None, None, calls))
            self.assertEqual(calls, wanted)
            os.unlink(self.path)

    def test_replaced(self) -> None:
        """A write replaces what was there."""
        for write in (files.write, files.write_soon):
            self.put(b"a longer old content")
            write(self.path, b"new")
            self.assertEqual(self.content(), b"new")

    def test_create_never_overwrites(self) -> None:
        """create refuses if the file exists, and leaves only that."""
        self.put(b"old")
        self.assertRaises(FileExistsError, files.create, self.path, b"new")
        self.assertEqual(self.content(), b"old")
        self.assertEqual(self.leftovers(), [])

    def test_one_creates(self) -> None:
        """If many create one file at the same time, one succeeds, and its content is kept."""
        start, made = threading.Barrier(8), []

        def create(content: Any) -> None:
            start.wait()
            try:
                files.create(self.path, content)
            except FileExistsError:
                return
            made.append(content)

        threads = [threading.Thread(target=create, args=[b"%d" % i * 1000]) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(made, [self.content()])
        self.assertEqual(self.leftovers(), [])


class Reading(SynchronousTestCase):
    """Reading what should be a file, but may be anything."""

    def setUp(self) -> None:
        self.path = os.path.join(make_folder(self), "x")

    def test_file(self) -> None:
        """A file is read, up to a bound."""
        files.write(self.path, b"12345")
        self.assertEqual(files.read_file(self.path, 3), b"123")

    def test_something_else(self) -> None:
        """A folder, a pipe, a link or a socket is refused, without waiting."""
        dangling, folder = os.path.join(self.path, "missing"), os.path.dirname(self.path)
        for make in (
            os.mkdir,
            os.mkfifo,
            lambda path: os.symlink(dangling, path),
            lambda path: os.symlink(__file__, path),
            listen_at,
        ):
            make(self.path)
            error = self.assertRaises(files.NoFile, files.read_file, self.path, 10)
            self.assertIn("not a regular file", str(error))
            os.rename(self.path, os.path.join(make_folder(self), "away"))
        self.assertEqual(os.listdir(folder), [])

    def test_missing(self) -> None:
        """A missing file is an error."""
        self.assertRaises(FileNotFoundError, files.read_file, self.path, 10)


def listen_at(path: Any) -> None:
    """Make a unix socket, by a short path."""
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        os.close(folder)


class CutShort(Case):
    """Writes that fail, or whose process is killed, at each call that they make."""

    def attempts(self, write: Any, fail: Any, old: Any) -> Iterator[Any]:
        """Write once for each call to fail, until none is left; yields the error and the call."""
        for number in itertools.count():
            if old is None and self.content() is not None:
                os.unlink(self.path)
            elif old is not None:
                self.put(old)
            calls: list[Any] = []
            disk = failing_disk(number, fail, calls)
            try:
                write(self.path, b"new content", disk)
            except (OSError, Stop) as error:
                yield error, calls[number]
            else:
                self.assertEqual(number, len(calls))
                return

    def old_contents(self, write: Any) -> Any:
        return (None,) if write is files.create else (None, b"old")

    def test_old_or_new(self) -> None:
        """Wherever a write ends, the file has the whole old content or the whole new one."""
        for write in WRITERS:
            for old in self.old_contents(write):
                for fail in (disk_full, stop):
                    for _ in self.attempts(write, fail, old):
                        self.assertIn(self.content(), (old, b"new content"))

    def test_a_failure_leaves_nothing(self) -> None:
        """A failed write removes its temporary file, unless that fails."""
        for write in WRITERS:
            for old in self.old_contents(write):
                for _, failed in self.attempts(write, disk_full, old):
                    self.assertEqual(bool(self.leftovers()), failed == "unlink")
                    remove_leftovers(self.folder)

    def test_a_failure_changes_nothing(self) -> None:
        """The old content is there, unless only the last step (tidying up) failed."""
        for write in WRITERS:
            for old in self.old_contents(write):
                failures = [
                    (failed, self.content()) for _, failed in self.attempts(write, disk_full, old)
                ]
                for failed, content in failures[: len(failures) - (write is not files.write_soon)]:
                    self.assertEqual(content, old, failed)

    def test_the_next_start_removes_the_rest(self) -> None:
        """What a killed write leaves is found by its name and removed; the file stays."""
        found = 0
        for write in WRITERS:
            for old in self.old_contents(write):
                for _ in self.attempts(write, stop, old):
                    before, content = self.leftovers(), self.content()
                    self.assertEqual(remove_leftovers(self.folder), before)
                    self.assertEqual(self.leftovers(), [])
                    self.assertEqual(self.content(), content)
                    found += len(before)
        self.assertGreater(found, 0)

    def test_a_leftover_is_not_written_through(self) -> None:
        """A temporary that a kill has left linked to the file is not written through."""
        self.patch(files, "_numbers", itertools.count(7))
        try:
            files.create(self.path, b"old", Disk(unlink=stop))
        except Stop:
            self.assertEqual(len(self.leftovers()), 1)
        self.patch(files, "_numbers", itertools.count(7))  # the next process counts from there too
        self.assertRaises(FileExistsError, files.create, self.path, b"new")
        self.assertEqual(self.content(), b"old")

    def test_only_leftovers_are_removed(self) -> None:
        """Files of other names stay."""
        for name in ("web.cfg", ".hidden", "x.tmp"):
            with open(os.path.join(self.folder, name), "w"):
                pass
        self.assertEqual(remove_leftovers(self.folder), [])
        self.assertEqual(len(os.listdir(self.folder)), 3)

    def test_a_folder_is_no_leftover(self) -> None:
        """A folder is not a leftover, whatever its name."""
        os.mkdir(os.path.join(self.folder, ".x.1.tmp"))
        self.assertEqual(remove_leftovers(self.folder), [])


class Documents(Case):
    """The configs."""

    def setUp(self) -> None:
        super().setUp()
        self.configs = Configs(self.folder)

    def test_kept_as_it_came(self) -> None:
        """A document is read back byte for byte."""
        self.configs.add("web-1-01.cfg", b'{ "name":\r\n\t"web" }\n\n')
        self.assertEqual(self.configs.read("web-1-01.cfg"), b'{ "name":\r\n\t"web" }\n\n')

    def test_sorted(self) -> None:
        """The names are sorted, and other files are not listed."""
        for name in (
            "web-1-02.cfg",
            "a-1-1.cfg",
            "web-1-01.cfg",
            "notes.txt",
            ".web.cfg.0.tmp",
            ".x.cfg",
        ):
            with open(os.path.join(self.folder, name), "w"):
                pass
        self.assertEqual(self.configs.names(), ["a-1-1.cfg", "web-1-01.cfg", "web-1-02.cfg"])

    def test_exists(self) -> None:
        """A second document of the same name is refused, and the first stays."""
        self.configs.add("web-1-01.cfg", b"first")
        error = self.assertRaises(ConfigExists, self.configs.add, "web-1-01.cfg", b"second")
        self.assertIn("web-1-01.cfg", str(error))
        self.assertEqual(self.configs.read("web-1-01.cfg"), b"first")

    def test_missing(self) -> None:
        """A document that is not there is named."""
        error = self.assertRaises(NoSuchConfig, self.configs.read, "web-1-01.cfg")
        self.assertIn("web-1-01.cfg", str(error))

    def test_no_file(self) -> None:
        """A folder, a pipe or a dangling link is not a config, whatever its name."""
        for name, make in (
            ("a-1-1.cfg", os.mkdir),
            ("b-1-1.cfg", os.mkfifo),
            ("c-1-1.cfg", lambda path: os.symlink("none", path)),
        ):
            make(os.path.join(self.folder, name))
            self.assertRaises(NoSuchConfig, self.configs.read, name)
        self.assertEqual(self.configs.names(), [])

    def test_a_full_disk(self) -> None:
        """An upload that finds the disk full leaves nothing, and can be repeated."""
        configs = Configs(self.folder, failing_disk(0, disk_full))
        self.assertRaises(OSError, configs.add, "web-1-01.cfg", b"first")
        self.assertEqual(configs.names(), [])
        configs.add("web-1-01.cfg", b"first")
        self.assertEqual(configs.read("web-1-01.cfg"), b"first")

    def test_recovery(self) -> None:
        """The next start removes what killed uploads have left."""
        configs = Configs(self.folder, failing_disk(1, stop))
        self.assertRaises(Stop, configs.add, "web-1-01.cfg", b"first")
        self.assertEqual(len(configs.recover()), 1)
        self.assertEqual(os.listdir(self.folder), [])
