"""Files and secrets that are written at a launch, seen from inside and from outside."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tests.integration.harness import ManagerCase, wait_until
from tests.integration.tarballs import file, folder, link
from tests.support import needs_user_namespaces

SECRET = "a-secret-like-no-other-0815"


class SmallFileCase(ManagerCase):
    """A test of containers with files and secrets."""

    def add_images(self) -> None:
        """Have links and folders where files are to be."""
        self.image(
            "small.tar",
            folder("srv"),
            file("srv/old", "the image's\n"),
            link("srv/link", "/srv/old"),
            link("srv/out", "../../../../../../tmp/txcontain-nowhere"),
            link("conf", "srv"),
            link("kernel", "/proc"),
        )

    def put(self, name: str = "db", content: str = SECRET) -> None:
        """Keep a secret."""
        answer = self.ask("PUT", f"/secrets/{name}", content.encode())
        self.assertEqual((answer.status, answer.body), (200, b""))

    def job(self, text: str, **keys: object) -> dict[str, object]:
        """The keys of a config that runs this text, without a tarball for it."""
        return {"command": ["sh", "-c", text], **keys}


class FileTests(SmallFileCase):
    """Files of a config."""

    def test_from_inside(self) -> None:
        """They have their content, owner and mode, no one can change them, and the image stays."""
        (self.folder / "mountables/app.conf").write_text("from\n")
        files = [
            {"path": "/srv/old", "content": "é\n", "owner": "worker:crew", "mode": "0640"},
            {"path": "/conf/link", "content": "link\n"},
            {"path": "/srv/out", "content": "out\n"},
            {"path": "/new/deep/one", "from": "app.conf", "mode": "0755", "owner": "1001:33"},
            {"path": "/tmp/x", "content": ""},
        ]
        look = "cat /srv/old /srv/link /srv/out /new/deep/one; ls -ln /srv/old /new/deep/one"
        change = "; (echo x >/srv/old) 2>/dev/null; rm /srv/old 2>/dev/null; cat /srv/old"
        said = self.inside(look + change, files=files, writable_root=True)
        lines = said.split("\n")
        self.assertEqual(lines[:4], ["é", "link", "out", "from"])
        self.assertEqual(lines[4].split()[:4], ["-rwxr-xr-x", "1", "1001", "33"])
        self.assertEqual(lines[5].split()[:4], ["-rw-r-----", "1", "1000", "2000"])
        self.assertEqual(lines[6:], ["é", ""])
        self.assertFalse(Path("/tmp/txcontain-nowhere").exists())
        (layer,) = self.state.glob("layers/*/srv")
        self.assertEqual((layer / "old").read_text(), "the image's\n")
        self.assertTrue((layer / "link").is_symlink())

    def test_again(self) -> None:
        """A restart finds them as they are then."""
        source = self.folder / "mountables/app.conf"
        source.write_text("first")
        files = [{"path": "/srv/app.conf", "from": "app.conf"}]
        count = "cat /srv/app.conf; sleep 0.5; exit 1"
        instance = self.launch(**self.job(count, files=files, restart="always", writable_root=True))
        source.write_text("second")
        wait_until(lambda: "firstsecond" in self.log_of(instance), "it was started again")

    @needs_user_namespaces
    def test_a_user_namespace(self) -> None:
        """Owners are right from inside a user namespace."""
        self.put()
        files = [{"path": "/new/own", "content": "own\n", "owner": "worker", "mode": "0400"}]
        said = self.inside(
            "cat /new/own /run/db; ls -ln /new/own /run/db",
            files=files,
            secrets=["db /run/db"],
            startup_owner="worker",
            user_namespace=True,
        )
        self.assertTrue(said.startswith(f"own\n{SECRET}"), said)
        self.assertEqual(said.count(" 1000 1000 "), 2)
        refused = self.try_to_launch(
            command=["ls"], user_namespace=True, secrets=["db /run/db 0400 70000"]
        )
        self.assert_refused(refused, 409, "a user namespace has only the ids below 65536")

    def test_refused(self) -> None:
        """What is at the place of a folder, leads to /proc, or has no owner, says so."""
        for path, owner, said in (
            ("/srv", "root", "there is a folder at /srv"),
            ("/kernel/x", "root", "a symbolic link leads to /proc"),
            ("/srv/x", "nobody", "the image knows no user 'nobody'"),
            ("/srv/old/x", "root", "a part of this path is a file in the image"),
        ):
            files = [{"path": path, "content": "", "owner": owner}]
            self.assert_refused(self.try_to_launch(command=["ls"], files=files), 409, said)
        self.assert_only_failures_left()


class SecretTests(SmallFileCase):
    """Secrets, which only a container is told."""

    def test_from_inside(self) -> None:
        """A secret is the owner's, or whose it is told to be, and no one else's."""
        self.put()
        keys = {"secrets": ["db /run/secrets/db", "db /srv/db 0440 root:crew"]}
        look = "cat /run/secrets/db; echo; ls -ln /run/secrets/db /srv/db; cat /srv/db"
        said = self.inside(look, startup_owner="worker", **keys).split("\n")
        self.assertEqual(said[0], SECRET)
        self.assertEqual(said[1].split()[:4], ["-r--------", "1", "1000", "1000"])
        self.assertEqual(said[2].split()[:4], ["-r--r-----", "1", "0", "2000"])
        self.assertEqual(said[3], SECRET)  # worker is of the crew

    def test_shown_to_no_one(self) -> None:
        """No answer, log or file but its own has it: whether it works, fails, or is set again."""
        self.put()
        self.put(content=f"{SECRET}-2")
        config = self.config(
            command=["sh", "-c", "cat /run/db >/dev/null; sleep 60"], secrets=["db /run/db"]
        )
        self.assertEqual(self.ask("POST", "/config", config).status, 200)
        asked = {"config": config["name"], "instance": "job"}
        self.assertEqual(self.ask("POST", "/instances", asked).status, 200)
        failing = self.config(command=["nothing"], secrets=["db /run/db"])
        answers = [
            self.ask("POST", "/instances", {"config": failing}),
            self.ask("PUT", "/secrets/b..%2f", SECRET.encode()),
            self.ask("PUT", "/secrets/db", (SECRET * 9000).encode()),
            self.ask("DELETE", "/secrets/db"),
            *(
                self.ask("GET", path)
                for path in (
                    "/instances",
                    "/instances/job",
                    "/instances/job/explain",
                    "/instances/job/logs",
                    "/events",
                    "/secrets",
                    "/configs",
                    f"/configs/{config['name']}-1-{config['minor']}",
                    "/list",
                    "/stats",
                )
            ),
        ]
        self.assertEqual([answer.status for answer in answers], [409] * 4 + [200] * 10)
        for answer in answers:
            self.assertNotIn(SECRET, f"{answer.body!r}{answer.reason}{answer.headers}")
        self.manager.kill()  # what it holds in memory is not asked for
        self.manager.wait()
        self.start()
        self.assertEqual([str(path) for path in self.holders()], [str(self.state / "secrets/db")])

    def holders(self) -> list[Path]:
        """The files below the test's folder that have the secret in them."""
        self.log.flush()
        paths = [Path(top, name) for top, _, names in os.walk(self.folder) for name in names]
        return [path for path in paths if self.holds(path)]

    def holds(self, path: Path) -> bool:
        """Whether a file has the secret in it; not if it was removed meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            return path.is_file() and SECRET.encode() in path.read_bytes()
        return False

    def test_at_rest(self) -> None:
        """Only root can read it where it is kept, and once it is removed it is gone."""
        self.put()
        path = self.state / "secrets/db"
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(path.parent.stat().st_mode & 0o777, 0o700)
        self.assertEqual(self.ask("DELETE", "/secrets/db").status, 200)
        self.assertEqual(os.listdir(path.parent), [])
        refused = self.try_to_launch(command=["ls"], secrets=["db /run/db"])
        self.assert_refused(refused, 409, "there is no secret db")


class PreparedTests(SecretTests):
    """The same with warm inits, which must not read a secret in advance."""

    pool = 2

    def test_set_again(self) -> None:
        """A launch gets the secret as it is at that time, however often it was like the last."""
        config = self.config(command=["cat", "/run/db"], secrets=["db /run/db"])
        for number in range(5):
            self.put(content=f"number {number}")
            launched = self.ask("POST", "/instances", {"config": config})
            self.assertEqual(launched.status, 200, launched.reason)
            self.assertEqual(self.output_of(launched.json["instance"]), f"number {number}")
