"""Files of real containers: out and in, what has changed, and what is kept."""

from __future__ import annotations

import http.client
import io
import os
import signal
import subprocess
import tarfile
from typing import Any

from tests.integration.harness import PROJECT, Answer, command_of, fingerprint, wait_until
from tests.integration.tarballs import file, folder, link
from tests.integration.test_exec import ExecCase
from tests.support import needs_user_namespaces
from txcontain.host.processes import descendants

EMPTY = {"proc"}, {"."}
BIG = 10 << 20  # bytes


def tar_of(**contents: bytes) -> bytes:
    """A tar stream with these files, which are someone's."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.mode = len(content), 1234, 0o640
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


class FilesCase(ExecCase):
    """A test with a container that has a READWRITE and a READ mount."""

    def begin(self, **keys: Any) -> str:
        """A container."""
        home = self.mountable("home.tar", folder("home"), file("home/kept", "old"))
        mounts = [f"{home} /data READWRITE", f"{home} /fixed READ"]
        return self.idle(mounts=mounts, **keys)

    def read(self, name: str, path: str) -> dict[str, tarfile.TarInfo]:
        """What is at a path, by its names in the stream."""
        answer = self.ask("GET", f"/instances/{name}/files?path={path}")
        self.assertEqual(answer.status, 200, answer.reason)
        self.stream = tarfile.open(fileobj=io.BytesIO(answer.body))  # noqa: SIM115 (it is kept)
        return {member.name: member for member in self.stream.getmembers()}

    def content(self, name: str, path: str) -> bytes:
        """The content of one file."""
        (member,) = self.read(name, path).values()
        taken = self.stream.extractfile(member)
        assert taken is not None
        return taken.read()

    def write(self, name: str, path: str, stream: bytes) -> Answer:
        """Write a tar stream into a folder."""
        return self.ask("PUT", f"/instances/{name}/files?path={path}", stream)

    def stop_one(self, name: str) -> None:
        """Stop an instance."""
        self.assertEqual(self.ask("POST", f"/instances/{name}/stop", {}).status, 200)

    def kinds(self, name: str) -> list[str]:
        """What it has changed, a line each."""
        answer = self.ask("GET", f"/instances/{name}/diff").json
        self.assertTrue(answer["complete"])
        return [f"{change['kind']} {change['path']}" for change in answer["changes"]]


class InAndOutTests(FilesCase):
    """Files go in and come out, whether it runs or not."""

    def go(self, name: str) -> None:
        """Write, read, and be refused."""
        answer = self.write(name, "/data", tar_of(new=b"x" * BIG, kept=b"newer"))
        self.assertEqual(answer.status, 200, answer.reason)
        found = self.read(name, "/data")
        self.assertLessEqual({"data", "data/new", "data/kept"}, set(found))
        self.assertEqual((found["data/new"].uid, found["data/new"].size), (0, BIG))
        self.assertEqual(self.content(name, "/data/kept"), b"newer")
        refused = self.write(name, "/fixed", tar_of(new=b"x"))
        self.assertEqual(refused.status, 409)
        self.assertIn("it can't be written there: the mount is READ", refused.reason)
        for path, said in (
            ("/data/none", "there is no /data/none in the container"),
            ("/data/kept/x", "/data/kept/x is no folder, or one of those above it is none"),
        ):
            refused = self.ask("GET", f"/instances/{name}/files?path={path}")
            self.assertEqual(refused.status, 404)
            self.assertIn(said, refused.reason)
        self.assertIn("is no folder", self.write(name, "/data/kept", tar_of(a=b"")).reason)

    def test_all(self) -> None:
        """One that runs, also paused; stopped, and started again with what came in meanwhile."""
        name = self.begin()
        self.go(name)
        self.ask("POST", f"/instances/{name}/pause", {})
        self.assertEqual(self.content(name, "/data/kept"), b"newer")
        self.assertEqual(self.write(name, "/data", tar_of(frozen=b"")).status, 200)
        self.ask("POST", f"/instances/{name}/resume", {})
        self.stop_one(name)
        self.go(name)
        self.assertEqual(self.write(name, "/data", tar_of(later=b"z")).status, 200)
        self.assertEqual(self.ask("POST", f"/instances/{name}/start", {}).status, 200)
        self.assertEqual(self.output(name, "ls /data"), "frozen\nkept\nlater\nnew\n")

    @needs_user_namespaces
    def test_owners(self) -> None:
        """Owners are what the container's root sees, in a user namespace too."""
        name = self.begin(user_namespace=True)
        for _ in ("runs", "stopped"):
            path = f"/instances/{name}/files?path=/data&owners=1"
            self.assertEqual(self.ask("PUT", path, tar_of(theirs=b"a")).status, 200)
            self.assertEqual(self.write(name, "/data", tar_of(roots=b"a")).status, 200)
            found = self.read(name, "/data")
            self.assertEqual((found["data/theirs"].uid, found["data/roots"].uid), (1234, 0))
            self.stop_one(name)

    def test_the_root(self) -> None:
        """All of it comes without the kernel's own folders, and nothing that was lent shows."""
        name = self.begin()
        for _ in ("runs", "stopped"):
            found = self.read(name, "/")
            self.assertIn("./data/kept", found)
            own = [path for path in found if path.startswith(("./proc/", "./sys/", "./dev/"))]
            self.assertEqual(own, [])
            self.assertEqual(
                (set(self.read(name, "/proc")), set(self.read(name, "/proc/."))), EMPTY
            )
            self.stop_one(name)

    def test_cp(self) -> None:
        """What the CLI copies in comes out as it was, under the names that cp(1) would give."""
        name = self.begin()
        own = self.folder / "own"
        (own / "sub").mkdir(parents=True)
        (own / "sub" / "a").write_text("a")
        os.chmod(own / "sub" / "a", 0o750)
        os.utime(own / "sub" / "a", (1, 1))  # the stream has no fractions of seconds
        for target in ("new", "new", "new/."):
            self.cp(own, f"{name}:/data/{target}")
        self.assertEqual(self.output(name, "cd /data/new; ls"), "own\nsub\n")
        self.cp(f"{name}:/data/new/own", self.folder / "back")
        self.assertEqual(fingerprint(own / "sub"), fingerprint(self.folder / "back" / "sub"))
        said = self.cp(own, f"{name}:/fixed", fails=True)
        self.assertIn("it can't be written there: the mount is READ", said)

    def cp(self, source: Any, target: Any, *, fails: bool = False) -> str:
        """Run the command; return what it says."""
        command = [PROJECT / "cli" / "cp", "--url", self.url, source, target]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, int(fails), done.stderr)
        return done.stderr

    def test_sparse(self) -> None:
        """A huge file of holes takes no time and no room, and a FIFO does not wait for a writer."""
        self.stop_one(name := self.begin())
        upper = self.folder / "state" / "instances" / name / "0-upper"
        (upper / "huge").touch()
        os.truncate(upper / "huge", 1 << 40)
        os.mkfifo(upper / "fifo")
        answer = self.ask("GET", f"/instances/{name}/files?path=/data")
        self.assertEqual(answer.status, 200)
        self.assertLess(len(answer.body), 1 << 20)


class HostileTests(FilesCase):
    """A container, or a stream, that tries to lead out."""

    def test_links(self) -> None:
        """A link leads to where it leads inside, for reading and for writing."""
        secret = self.folder / "secret"
        secret.write_text("the host's")
        out, up = str(secret), f"../../../../../..{secret}"
        targets = {"out": out, "up": up, "top": "/", "dir": str(self.folder)}
        home = [folder("home"), *(link(f"home/{name}", to) for name, to in targets.items())]
        tarball = self.mountable("home.tar", *home)
        name = self.idle(mounts=[f"{tarball} /data READWRITE"])
        for _ in ("runs", "stopped"):
            self.assertTrue(self.read(name, "/data/out")["out"].issym())
            for path in ("/data/out/", "/data/up/", "/data/dir/secret", f"/data/top{secret}"):
                answer = self.ask("GET", f"/instances/{name}/files?path={path}")
                self.assertEqual(answer.status, 404, path)
            self.assertEqual(self.write(name, "/data/dir", tar_of(secret=b"bad")).status, 404)
            self.write(name, "/data", tar_of(**{f"../../..{secret}": b"bad"}))
            self.assertEqual(secret.read_text(), "the host's")
            self.stop_one(name)

    def test_no_one_looks(self) -> None:
        """No process of the container sees tar, its files or its mounts; no device is made."""
        name = self.begin()
        member = tarfile.TarInfo("disk")
        member.type, member.devmajor, member.devminor = tarfile.BLKTYPE, 8, 0
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            tar.addfile(member)
        before = self.output(name, "cat /proc/self/mountinfo; ls /proc/1/fd")
        connection = self.half(name)
        self.assertEqual(self.output(name, "cat /proc/self/mountinfo; ls /proc/1/fd"), before)
        self.assertEqual(len(self.output(name, "ls -d /proc/[0-9]*").split()), 2)
        connection.close()
        answer = self.write(name, "/data", stream.getvalue())
        self.assertEqual((answer.status, answer.notes), (200, ["left out: 1 device nodes"]))

    def half(self, name: str) -> http.client.HTTPConnection:
        """A write of which only the first half comes."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"))
        connection.putrequest("PUT", f"/instances/{name}/files?path=/data")
        connection.putheader("Content-Length", str(BIG))
        connection.endheaders(tar_of(half=bytes(1 << 20))[: 1 << 19])
        wait_until(self.tars, "tar runs")
        return connection

    def tars(self) -> list[int]:
        """The processes of tar that this manager has started."""
        ours = descendants(self.manager.pid)
        return [pid for pid in ours if "--extract" in command_of(pid)]

    def test_hung_up(self) -> None:
        """Tar ends with its client, with its instance, and with the manager."""
        name = self.begin()
        self.half(name).close()
        wait_until(lambda: not self.tars(), "tar ends with its client")
        connection = self.half(name)
        self.assertEqual(self.ask("DELETE", f"/destroy/{name}").status, 200)
        wait_until(lambda: not self.tars(), "tar ends with its instance")
        connection.close()
        self.stop_one(name := self.begin())
        connection = self.half(name)
        (tar,) = self.tars()
        self.manager.send_signal(signal.SIGKILL)
        self.manager.wait()
        wait_until(lambda: not os.path.exists(f"/proc/{tar}"), "tar ends with the manager")
        connection.close()
        self.start()


class KeepingTests(FilesCase):
    """What has changed, and what is kept of it."""

    def test_diff_and_commit(self) -> None:
        """Changes are told by path; a commit of them is mounted as any other tarball."""
        name = self.begin(writable_root=True)
        self.assertEqual(self.kinds(name), [])
        self.output(name, "mkdir /new; echo a > /new/a; rm /data/kept; ln -s /etc/shadow /data/l")
        wanted = ["A /new", "A /new/a", "D /data/kept", "A /data/l"]
        self.assertEqual(self.kinds(name), wanted)
        path = f"/instances/{name}/commit"
        answer = self.ask("POST", path, {"mountable": "kept.tar", "mount": "/data", "pause": True})
        self.assertEqual(answer.status, 200, answer.reason)
        self.assertFalse(self.ask("GET", f"/instances/{name}").json.get("paused"))
        twice = self.ask("POST", path, {"mountable": "kept.tar", "mount": "/data"})
        self.assertEqual(twice.status, 409)
        self.assertIn("there is a kept.tar in mountables/ already", twice.reason)
        self.stop_one(name)
        self.assertEqual(self.kinds(name), wanted)
        answer = self.ask("POST", path, {"mountable": "root.tar", "mount": "/"})
        self.assertEqual(answer.status, 200, answer.reason)
        other = self.idle(mounts=["kept.tar /k READ", "root.tar /r READ"])
        self.assertEqual(self.output(other, "ls /k; cat /r/new/a; ls /r/data"), "l\na\n")
