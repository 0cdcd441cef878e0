"""Volumes and folders of the host: data that outlives containers, on real disks."""

import json
import os
import signal
import stat
import time
from pathlib import Path
from typing import Any

from tests.integration.harness import ManagerCase, wait_until
from tests.integration.tarballs import Member, file, folder, link, special
from tests.support import needs_user_namespaces

SEED = (
    folder("seed", mode=0o1770),
    file("seed/config", "from the image", mode=0o4640),
    special("seed/again", b"1", "seed/config"),  # a hard link
    link("seed/link", "/etc/passwd"),
    folder("seed/below"),
    folder("seed/below/deep", mode=0o700),
    file("seed/below/deep/file", "x" * 100_000),
)


def owned(member: Member, uid: int, gid: int) -> Member:
    """The same, with another owner."""
    member[0].uid, member[0].gid = uid, gid
    return member


class VolumeCase(ManagerCase):
    """A test whose base image has a folder with files in it."""

    base_image = "seeded.tar"

    def add_images(self) -> None:
        self.image("seeded.tar", *(owned(member, 1000, 2000) for member in SEED))

    def data(self, name: str) -> Path:
        """Where a volume's data is on the host."""
        return self.state / "volumes" / name / "data"

    def volume(self, name: str) -> Any:
        """What the manager tells of a volume."""
        return self.ask("GET", f"/volumes/{name}").json

    def kill(self) -> None:
        """Kill the manager and all of its containers, with no time to tidy up."""
        self.manager.kill()
        self.manager.wait()
        for record in self.state.glob("instances/*/instance.json"):
            if pid := json.loads(record.read_bytes())["pid"]:
                os.kill(pid, signal.SIGKILL)


class LifeTests(VolumeCase):
    """The life of a volume."""

    def test_filled_once(self) -> None:
        """The first use fills it from the image; later ones find what is in it by then."""
        said = self.inside("cat /seed/config; echo more >/seed/config", volumes=["a /seed"])
        self.assertEqual(said, "from the image")
        self.assertEqual(self.inside("cat /seed/again", volumes=["a /seed"]), "more\n")
        data = self.data("a")
        facts = {str(path.relative_to(data)): path.lstat() for path in data.rglob("*")}
        facts["."] = data.lstat()
        modes = {name: stat.S_IMODE(status.st_mode) for name, status in facts.items()}
        wanted = {".": 0o1770, "config": 0o4640, "again": 0o4640, "below/deep": 0o700}
        self.assertEqual({name: modes[name] for name in wanted}, wanted)
        self.assertEqual((facts["config"].st_ino, facts["."].st_uid), (facts["again"].st_ino, 1000))
        self.assertEqual({(one.st_uid, one.st_gid) for one in facts.values()}, {(1000, 2000)})
        self.assertEqual(os.readlink(data / "link"), "/etc/passwd")
        self.assertEqual((data / "below/deep/file").read_text(), "x" * 100_000)

    def test_outlives_all(self) -> None:
        """It survives that everything is killed, and that its instances are destroyed."""
        instance = self.running_inside("echo data >/data/file", volumes=["a /data"])
        self.kill()
        self.start()
        self.assertEqual(self.volume("a")["used_by"], [instance])
        answer = self.ask("DELETE", f"/destroy/{instance}")
        self.assertEqual(answer.notes, ["kept: the volume a"])
        self.assertEqual(self.inside("cat /data/file", volumes=["a /data"]), "data\n")

    def test_what_a_destroy_removes(self) -> None:
        """A destroy says which data is lost, and which stays."""
        tarball = self.mountable("own.tar", file("x"))
        keys = {"mounts": [f"{tarball} /own READWRITE"], "volumes": ["a /data", "b /other"]}
        answer = self.ask("DELETE", f"/destroy/{(name := self.launch(**keys))}")
        notes = [f"removed with {name}: what it wrote below /own", "kept: the volumes a, b"]
        self.assertEqual((answer.body, answer.notes), (b"", notes))
        self.assertEqual(self.ask("DELETE", f"/destroy/{self.launch()}").notes, [])

    def test_shared(self) -> None:
        """Several instances share one; those that may only read it can't write."""
        writer = self.running_inside("echo one >/data/file", volumes=["a /data"])
        said = self.inside("cat /x/file; echo two >/x/file || echo refused", volumes=["a /x/ READ"])
        self.assertEqual(said, "one\nrefused\n")
        self.assertEqual(self.volume("a")["used_by"][0], writer)
        self.assertGreater(self.volume("a")["size"], 4096)

    def test_filled_by_one(self) -> None:
        """If several are the first at the same time, one of them fills it, and all find it full."""
        text = "ls /seed | grep -c . ; echo done"
        names = [self.launch(**self.job(text, volumes=["a /seed"])) for _ in range(4)]
        self.assertEqual({self.output_of(name) for name in names}, {"4\ndone\n"})
        self.assertEqual(len(list((self.state / "volumes/a").iterdir())), 2)

    def test_no_powers(self) -> None:
        """A setuid bit and a device in it have no effect."""
        options = self.inside("cat /proc/self/mountinfo", volumes=["a /data"])
        (line,) = [line for line in options.splitlines() if " /data " in line]
        self.assertIn("rw,nosuid,nodev", line)

    def test_half_filled(self) -> None:
        """A fill that was cut short is not taken for a whole one, and is removed."""
        self.inside("true", volumes=["a /data"])
        self.manager.kill()
        self.manager.wait()
        self.data("a").rename(self.state / "volumes/a/filling-1")
        (self.state / "volumes/.b-1").mkdir()
        self.start()
        self.assertEqual(self.inside("cat /seed/config", volumes=["a /seed"]), "from the image")
        leftover = self.state / "volumes/a/filling-1"
        wait_until(lambda: not leftover.exists(), "the leftover is gone")
        wait_until(lambda: not (self.state / "volumes/.b-1").exists(), "so is the other")

    def test_removed(self) -> None:
        """One in use stays, also if its instances have ended; then it can be removed, and made
        again.
        """
        instance = self.launch(**self.job("echo x >/data/file", volumes=["a /data"]))
        self.output_of(instance)
        answer = self.ask("DELETE", "/volumes/a")
        self.assertEqual((answer.status, answer.json["type"]), (409, "urn:txcontain:in-use"))
        self.assertEqual(
            [answer.json["detail"], *answer.json["chain"]],
            ["instances use the volume a", instance, "destroy them first"],
        )
        self.ask("DELETE", f"/destroy/{instance}")
        self.assertEqual(self.ask("DELETE", "/volumes/a").json, {"removed": "a"})
        self.assertEqual(list((self.state / "volumes").iterdir()), [])
        self.assertEqual(self.ask("GET", "/volumes/a").status, 404)
        self.assertEqual(self.inside("ls /data", volumes=["a /data"]), "")
        told = self.ask("GET", "/events").body.decode()
        self.assertIn("a was removed, with all that was in it", told)

    def test_where_it_is_mounted(self) -> None:
        """A link of the image leads to a place in the container, and not to one of the host."""
        self.image("linked.tar", link("out", "../../../../data"), link("proc2", "proc"))
        keys = {"base_image": "linked.tar", "volumes": ["a /out"]}
        self.assertEqual(self.inside("echo x >/data/file; ls /out", **keys), "file\n")
        answer = self.try_to_launch(base_image="linked.tar", volumes=["a /proc2/x"])
        self.assert_refused(answer, 409, "which is the container's own")

    def test_links_in_a_volume(self) -> None:
        """A link that a container has planted in one leads another to its own files only."""
        outside = self.folder / "outside"
        outside.mkdir()
        (outside / "secret").write_text("secret")
        self.inside(f"ln -s {outside} /a/out; ln -s / /a/top", volumes=["a /a"])
        said = self.inside(
            "cat /a/out/secret 2>/dev/null || echo no; ls /b/inner",
            volumes=["a /a", "b /a/top/b/inner", "c /a/c"],
        )
        self.assertEqual(said, "no\n")
        answer = self.try_to_launch(volumes=["a /a", "d /a/out/x"])
        self.assertEqual(answer.status, 200, answer.reason)
        self.assertEqual(sorted(path.name for path in outside.iterdir()), ["secret"])
        self.assertEqual(sorted(path.name for path in self.data("d").iterdir()), [])


class WarmTests(VolumeCase):
    """Volumes that warm inits have mounted in advance."""

    pool = 2

    def test_removed_meanwhile(self) -> None:
        """No launch gets a volume that was removed since its init has mounted it."""
        config = self.upload(**self.job("echo x >>/data/file; cat /data/file", volumes=["a /data"]))
        for _ in range(3):
            said = self.output_of(self.ask("POST", "/launch", config).json["instance"])
            time.sleep(0.2)  # so that an init can be prepared
        self.assertEqual(said, "x\nx\nx\n")
        self.ask("DELETE", "/destroyall")
        self.assertEqual(self.ask("DELETE", "/volumes/a").status, 200)
        instance = self.ask("POST", "/launch", config).json["instance"]
        self.assertEqual(self.output_of(instance), "x\n")
        self.assertEqual((self.data("a") / "file").read_text(), "x\n")


class HostFolderTests(VolumeCase):
    """Folders of the host."""

    def setUp(self) -> None:
        self.options = ("--host-folders", "/nowhere:" + os.devnull)
        super().setUp()

    def start(self, **environment: str) -> None:
        """Start the manager with leave to mount what is below a folder of this test."""
        self.allowed = self.folder / "allowed"
        (self.allowed / "site").mkdir(parents=True, exist_ok=True)
        (self.allowed / "site/index").write_text("hello")
        (self.folder / "secret").mkdir(exist_ok=True)
        self.options = ("--host-folders", f"/nowhere:{self.allowed}")
        super().start(**environment)

    def test_mounted(self) -> None:
        """One below an allowed folder is mounted, for reading or writing; its content stays."""
        site = f"{self.allowed}/site"
        text = "cat /www/index; echo x >/www/new || echo refused"
        self.assertEqual(self.inside(text, volumes=[f"{site} /www READ"]), "hellorefused\n")
        self.inside("echo x >/www/new", volumes=[f"{site} /www"])
        self.assertEqual((self.allowed / "site/new").read_text(), "x\n")
        self.assertEqual(self.ask("GET", "/volumes").json, {"volumes": []})

    def test_not_allowed(self) -> None:
        """Any other is refused, and the answer names those that are allowed."""
        known = f"the manager allows those below /nowhere, {self.allowed} (--host-folders)"
        for path in (f"{self.folder}/secret", "/etc", f"{self.allowed}more"):
            answer = self.try_to_launch(volumes=[f"{path} /x READ"])
            self.assert_refused(answer, 409, path, "it is no folder that may be mounted", known)

    def test_links(self) -> None:
        """A symbolic link may lead to a place inside of the allowed folder, and never out."""
        (self.allowed / "inner").symlink_to("site")
        (self.allowed / "absolute").symlink_to(self.folder / "secret")
        (self.allowed / "up").symlink_to("../secret")
        said = self.inside("cat /x/index", volumes=[f"{self.allowed}/inner /x READ"])
        self.assertEqual(said, "hello")
        for name in ("absolute", "up"):
            answer = self.try_to_launch(volumes=[f"{self.allowed}/{name} /x READ"])
            out = f"a symbolic link leads out of {self.allowed}"
            self.assert_refused(answer, 409, out, "--host-folders")

    def test_missing(self) -> None:
        """One that is not there, or is no folder, is refused."""
        for name in ("missing", "site/index"):
            answer = self.try_to_launch(volumes=[f"{self.allowed}/{name} /x READ"])
            self.assert_refused(answer, 409, "it is no folder of the host")

    def test_looked_at_anew(self) -> None:
        """Each start finds what is there by then."""
        text = "cat /x/index"
        config = self.upload(**self.job(text, volumes=[f"{self.allowed}/site /x READ"]))
        self.output_of(self.ask("POST", "/launch", config).json["instance"])
        (self.allowed / "site").rename(self.allowed / "old")
        (self.allowed / "site").symlink_to("../secret")
        answer = self.ask("POST", "/launch", config)
        self.assert_refused(answer, 409, "a symbolic link leads out")


@needs_user_namespaces
class OwnerTests(VolumeCase):
    """Who owns what, with user namespaces."""

    def test_owners(self) -> None:
        """Owners are the same inside and on the disk, also of what fills it, and for others."""
        text = "ls -ln /seed/config; touch /seed/mine; chown 5:6 /seed/mine; ls -ln /seed/mine"
        keys: dict[str, Any] = {"volumes": ["a /seed"], "user_namespace": True}
        said = self.inside(text, **keys).splitlines()
        self.assertEqual([line.split()[2:4] for line in said], [["1000", "2000"], ["5", "6"]])
        status = (self.data("a") / "mine").stat()
        self.assertEqual((status.st_uid, status.st_gid), (5, 6))
        plain = self.inside("ls -ln /seed/mine", volumes=["a /seed"])
        self.assertEqual(plain.split()[2:4], ["5", "6"])

    def test_read_only(self) -> None:
        """READ holds there too."""
        keys: dict[str, Any] = {"volumes": ["a /data READ"], "user_namespace": True}
        self.assertEqual(self.inside("touch /data/x || echo refused", **keys), "refused\n")
