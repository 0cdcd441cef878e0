"""Containers whose root is nobody outside."""

from __future__ import annotations

import json
import os
import re
from functools import partial
from pathlib import Path

from tests.integration.harness import ManagerCase, wait_until
from tests.integration.probes import TAKE_ALL, ProbeCase
from tests.integration.tarballs import Member, file, folder
from tests.support import needs_user_namespaces
from txcontain.container.facts import FIRST_ID, IDS


def owned(member: Member, uid: int, gid: int) -> Member:
    """The same, with another owner."""
    member[0].uid, member[0].gid = uid, gid
    return member


@needs_user_namespaces
class UserNamespaceCase(ProbeCase):
    """A test whose containers have user namespaces."""

    def start_probe(self, text: str, **keys: object) -> str:
        return super().start_probe(text, **{"user_namespace": True, **keys})

    def first_id(self, instance: str) -> int:
        """Who root in an instance is outside."""
        return self.ask("GET", f"/instances/{instance}").json["ids"]

    def process(self, instance: str) -> Path:
        """PID 1 of an instance, in the host's /proc."""
        return Path("/proc", str(self.ask("GET", f"/instances/{instance}").json["pid"]))


class IdentityTests(UserNamespaceCase):
    """Who is who."""

    def test_root(self) -> None:
        """Root is root inside, with the usual powers, and nobody outside."""
        instance = self.start_probe("""
status = open("/proc/self/status").read()
tell(uid=os.getuid(), gid=os.getgid(), groups=os.getgroups(),
     map=open("/proc/self/uid_map").read().split(), status=status)
signal.pause()
""")
        wait_until(lambda: self.written(instance), "it has told")
        said = json.loads(self.written(instance))
        first = self.first_id(instance)
        self.assertEqual((said["uid"], said["gid"], said["groups"]), (0, 0, [0]))
        self.assertEqual(said["map"], ["0", str(first), str(IDS)])
        status = (self.process(instance) / "status").read_text()
        for kind in ("Uid", "Gid"):
            (ids,) = re.findall(rf"{kind}:(.*)", status)
            self.assertEqual({*map(int, ids.split())}, {first})
        self.assertEqual(re.findall("Groups:(.*)", status)[0].split(), [str(first)])
        inside = dict(re.findall(r"(Cap\w+|NoNewPrivs):\s*(\w+)", said["status"]))
        self.assertEqual(inside["CapEff"], inside["CapBnd"])
        self.assertEqual(int(inside["CapEff"], 16), 0xA00405FB)
        self.assertEqual((inside["CapInh"], inside["NoNewPrivs"]), ("0" * 16, "1"))

    def test_powers_are_over_its_own_alone(self) -> None:
        """Its capabilities count only for its own ids, and for nothing of the host."""
        said = self.probe("""
with open("/tmp/own", "w"):
    pass
os.setgroups([]); os.chown("/tmp/own", 1000, 65535)
tell(given=attempt(os.chown, "/tmp/own", 5, 5), beyond=attempt(os.chown, "/tmp/own", 65536, 0),
     hosts=attempt(os.chown, "/proc/sys", 0, 0), setting=attempt(os.chmod, "/sys", 0o777),
     user=in_child(lambda: attempt(os.setuid, 1000) != "done"),
     unmapped=attempt(os.setuid, 65536),
     port=attempt(socket.socket().bind, ("127.0.0.1", 81)))
""")
        self.assertEqual((said["given"], said["beyond"]), ("done", "EINVAL"))
        self.assertIn(said["hosts"], ("EPERM", "EROFS"))
        self.assertIn(said["setting"], ("EPERM", "EROFS"))
        self.assertEqual((said["user"], said["unmapped"]), (0, "EINVAL"))
        self.assertEqual(said["port"], "EACCES")  # the network is the host's

    def test_own_network(self) -> None:
        """In a network of its own, it may listen on any port."""
        said = self.probe(
            'tell(port=attempt(socket.socket().bind, ("127.0.0.1", 80)))', network="none"
        )
        self.assertEqual(said, {"port": "done"})

    def test_owner(self) -> None:
        """A startup_owner is that user inside; one beyond the range is refused with a reason."""
        said = self.probe(
            'tell(uid=os.getuid(), groups=os.getgroups(), log=attempt(open, "/dev/stdout", "a"))',
            startup_owner="worker",
        )
        self.assertEqual(said, {"uid": 1000, "groups": [1000, 2000], "log": "done"})
        self.assert_refused(
            self.try_to_launch(user_namespace=True, startup_owner="70000"),
            409,
            "only the ids below 65536",
        )

    def test_ranges(self) -> None:
        """Each instance has a range of its own, and one that is free again is used again."""
        one, two = (self.launch(user_namespace=True) for _ in range(2))
        self.assertEqual([self.first_id(one), self.first_id(two)], [FIRST_ID, FIRST_ID + IDS])
        self.ask("DELETE", f"/destroy/{one}")
        three = self.launch(user_namespace=True)
        self.assertEqual(self.first_id(three), FIRST_ID)

    def test_next_manager(self) -> None:
        """The next manager knows the ranges, and a restart keeps its own."""
        instance = self.launch(user_namespace=True, restart="always")
        self.manager.terminate()
        self.manager.wait()
        self.start()
        self.assertEqual(self.first_id(instance), FIRST_ID)
        self.assertEqual(self.first_id(self.launch(user_namespace=True)), FIRST_ID + IDS)
        before = self.process(instance)
        os.kill(int(before.name), 9)
        wait_until(lambda: self.is_restarted(instance), "it is restarted")
        self.assertIn(f"Uid:\t{FIRST_ID}\t", (self.process(instance) / "status").read_text())

    def is_restarted(self, instance: str) -> bool:
        """Whether it runs for the second time."""
        record = self.ask("GET", f"/instances/{instance}").json
        return record["restarts"] == 1 and record["state"] == "running"


class ShareTests(UserNamespaceCase):
    """What the kernel counts for a user as a whole."""

    def test_all_of_it(self) -> None:
        """A container that takes all it can leaves the next one as much."""
        said = []
        for _ in range(2):
            instance = self.start_probe(TAKE_ALL)
            wait_until(partial(self.written, instance), "it has told")
            said.append(json.loads(self.written(instance)))
        self.assertEqual(said[0], said[1])
        self.assertGreater(min(said[0].values()), 1)


class FileTests(UserNamespaceCase):
    """Whose files are whose."""

    LOOK = """
def owner(path):
    status = os.lstat(path)
    return [status.st_uid, status.st_gid]
"""

    def test_layers(self) -> None:
        """The files of the shared layers have inside the owners that the tarball says."""
        members = [
            owned(folder("data"), 0, 0),
            owned(file("data/of-root"), 0, 0),
            owned(file("data/of-worker"), 1000, 2000),
            owned(file("data/far"), 70000, 0),
        ]
        for access in ("READ", "READWRITE"):
            mount = f"{self.mountable('data.tar', *members)} /data {access}"
            look = (
                self.LOOK
                + """
tell(**{name: owner("/data/" + name) for name in (".", "of-root", "of-worker", "far")},
     shell=owner("/bin/sh"), root=owner("/"))
"""
            )
            said = self.probe(look, mounts=[mount])
            self.assertEqual(
                said,
                {
                    ".": [0, 0],
                    "of-root": [0, 0],
                    "of-worker": [1000, 2000],
                    "far": [65534, 0],
                    "shell": [0, 0],
                    "root": [0, 0],
                },
            )

    def test_written(self) -> None:
        """What is written to READWRITE data has the right owner, inside and outside."""
        members = [owned(folder("data"), 0, 0), owned(file("data/old", "old"), 1000, 1000)]
        mount = f"{self.mountable('data.tar', *members)} /data READWRITE"
        write = (
            self.LOOK
            + """
with open("/data/old", "a") as f:
    f.write(" and new")
with open("/data/new", "w"):
    pass
os.mkdir("/data/folder")
os.chown("/data/new", 5, 6)
tell(old=owner("/data/old"), new=owner("/data/new"), folder=owner("/data/folder"))
"""
        )
        instance = self.start_probe(write, mounts=[mount])
        said = self.told_by(instance)
        self.assertEqual(said, {"old": [1000, 1000], "new": [5, 6], "folder": [0, 0]})
        first = self.first_id(instance)
        upper = self.state / "instances" / instance / "0-upper"
        outside = {path.name: path.lstat().st_uid - first for path in upper.iterdir()}
        self.assertEqual(outside, {"old": 1000, "new": 5, "folder": 0})

    def test_shared(self) -> None:
        """The layer stays unchanged, and also serves containers without user namespaces."""
        mount = f"{self.mountable('data.tar', folder('data'), file('data/file'))} /data READWRITE"
        look = self.LOOK + 'tell(owner=owner("/data/file"), written=attempt(open, "/data/x", "w"))'
        for wanted in (True, False, True):
            said = self.probe(look, mounts=[mount], user_namespace=wanted)
            self.assertEqual(said, {"owner": [0, 0], "written": "done"})

    def test_own_file_systems(self) -> None:
        """/dev, /run, /tmp and mount points that were made are root's; devices and streams work."""
        mount = f"{self.mountable('data.tar', folder('data'))} /made/for/it READ"
        said = self.probe(
            self.LOOK
            + """
paths = ["/dev", "/dev/shm", "/run", "/tmp", "/made", "/made/for"]
def write(path, mode="w"):
    with open(path, mode) as f:
        f.write("")
tell(owners=[owner(path) for path in paths], null=attempt(write, "/dev/null"),
     stdout=attempt(write, "/dev/stdout", "a"), stderr=attempt(write, "/dev/stderr", "a"),
     random=len(os.urandom(4)), terminal=attempt(os.openpty), file=attempt(write, "/dev/mine"))
""",
            mounts=[mount],
        )
        self.assertEqual({tuple(owner) for owner in said.pop("owners")}, {(0, 0)})
        self.assertEqual(said.pop("random"), 4)
        self.assertEqual({*said.values()}, {"done"})

    def test_writable_root(self) -> None:
        """A writable root is writable everywhere."""
        said = self.probe(
            """
def write(path):
    with open(path, "w") as f:
        f.write("x")
tell(etc=attempt(write, "/etc/passwd"), root=attempt(write, "/root/file"),
     top=attempt(os.mkdir, "/new"))
""",
            writable_root=True,
        )
        self.assertEqual({*said.values()}, {"done"})


@needs_user_namespaces
class EveryoneTests(ManagerCase):
    """A manager that gives a user namespace to everyone."""

    options = ("--user-namespace",)

    def test_everyone(self) -> None:
        """Every container of such a manager has one, and comes and goes as usual."""
        out = self.inside("cat /proc/self/uid_map; id -u; ls -ln /bin/sh")
        self.assertIn(str(FIRST_ID), out)
        self.assertIn("\n0\n", out)
